"""main.cf: lines, settings, and parameters that are expanded when they are asked for."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.providers.postfix.expansion import ExpansionError, compatibility_level, expand
from chrootsync.providers.postfix.main_cf import FileError, Parameters, parse

VALUES = {
    "empty": "",
    "indirect": "$empty",
    "set": "value",
    "level": "3.10",
    "ten": "10",
    "loop": "a ${loop}",
    "one": "$two",
    "two": "x${one}",
    "tests_itself": "${tests_itself?yes}",
}


def expanded(text: str) -> str:
    return expand(text, VALUES.get)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("a = b", {"a": "b"}),
        ("a=b\n", {"a": "b"}),
        ("a \t=\t b c \t\r\n", {"a": "b c"}),
        ("a =\n", {"a": ""}),
        ("a = b\n c\n\td\n", {"a": "b c\td"}),
        ("a = b\n# comment\n\n  # comment\n c\n", {"a": "b c"}),
        ("  orphan = x\n # comment\n\ty\na = b\n", {"a": "b"}),
        ("a\n = b\n", {"a": "b"}),
        ("a = b\na = c\n", {"a": "c"}),
        ("a = b = c # no comment\n", {"a": "b = c # no comment"}),
        ("a = b\f\vc\x0b\n", {"a": "b\f\vc"}),
        ("a = b\0c\n", {"a": "b"}),
        ("a = \u2028b\u00a0\n", {"a": "\u2028b\u00a0"}),
        ("a-b.c = d\n", {"a-b.c": "d"}),
    ],
)
def test_settings(text: str, parameters: dict[str, str]) -> None:
    assert parse(text) == parameters


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nothing\n", 1),
        ("a = b\n\n# comment\n= c\n", 4),
        ("a = b\n  continued\ntwo words = c\n", 3),
        ("a\n# comment\n b = c\n", 1),
    ],
)
def test_faulty_lines_are_named(text: str, line: int) -> None:
    with pytest.raises(FileError) as caught:
        parse(text)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"line {line}: ")
    assert str(caught.value).endswith("is not of the form name = value")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$set ${set} $(set) ${ set }", "value value value value"),
        ("$set-x$unknown.", "value-x."),
        ("$$set $$$set", "$set $value"),
        ("$indirect$empty", ""),
        ("${set?yes}${set:no}${empty?yes}${empty:no}", "yesno"),
        ("${unknown?yes}${unknown:no}", "no"),
        ("${indirect?not empty as it is written}", "not empty as it is written"),
        ("${set?{yes}:{no}} ${empty ? {yes} : {no}}", "yes no"),
        ("${set?{yes}:no}${empty?{yes}: no}", "yes no"),
        ("${set?a:b}", "a:b"),
        ("${set?$set}${empty:{${set?{$ten}}}}", "value10"),
        ("$(set?(x))", "(x)"),
        ("${{a} == {a}}", "true"),
        ("${{a} != {a}}", ""),
        ("${{a}=={b}?{x}:{y}}", "y"),
        ("${{2} < {10}?numbers}${{x2} < {x10}?text}", "numbers"),
        ("${{$ten} >= {10} ? {yes} : {no}}", "yes"),
        ("${{} == {$empty} ? {equal}}", "equal"),
        ("${{$level} >level {3.9}?newer}${{$level} > {3.9}?later}", "newer"),
        ("${{3} ==level {3.0.0}?same}", "same"),
        ("${tests_itself}", "yes"),
        ("${{é} > {z}?bytes}", "bytes"),
    ],
)
def test_expansion(text: str, value: str) -> None:
    assert expanded(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$", '"$" has a "$" without a parameter name (a plain "$" is "$$")'),
        ("a ${} b", '"${} b" has a "$" without a parameter name (a plain "$" is "$$")'),
        ("${set", '"${set" lacks its closing brace'),
        ("$(set}", '"$(set}" lacks its closing brace'),
        ("${a b}", '"a b" is no parameter name'),
        ("${set!x}", '"set!x" is no parameter name'),
        ("${set?{a}b}", '"?" or ":" is expected before "b"'),
        ("${set?{a}:{b}c}", 'unexpected "c"'),
        ("${set?({a}", '"${set?({a}" lacks its closing brace'),
        ("$(set?{a)", '"{a" lacks a closing brace'),
        ("$({a)", '"{a" lacks a closing brace'),
        ("${{a} = {b}}", 'a comparison such as "==" is expected before "= {b}"'),
        ("${{a} ==size {b}}", 'a comparison such as "==" is expected before "==size {b}"'),
        ("${{a} == b}", '"{" is expected before "b"'),
        ("${{a} == {a} x}", '"?" or ":" is expected before "x"'),
        ("${{new} <level {3}}", 'the compatibility level "new" is not of the form 3.6'),
        ("${{9999999999999999999} < {1}}", "a number is too large"),
        ("$loop", "it refers to itself (loop → loop)"),
        ("$one", "it refers to itself (one → two → one)"),
    ],
)
def test_faulty_values(text: str, reason: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expanded(text)
    assert str(caught.value) == reason


def test_only_the_chosen_branch_is_looked_at() -> None:
    assert expanded("${set?{yes}:{$loop}}") == "yes"


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ExpansionError, match=r"^it is nested more than 100 levels deep$"):
        expanded("${set?" * 101 + "x" + "}" * 101)
    with pytest.raises(ExpansionError, match=r"^it is nested more than 100 levels deep$"):
        expanded("${{" * 200 + "} == {x}}" * 200)


def test_values_that_double_themselves_are_refused() -> None:
    values = {f"p{number}": f"$p{number + 1}$p{number + 1}" for number in range(60)} | {"p60": "x"}
    with pytest.raises(ExpansionError, match=r"^it expands to more than a million characters$"):
        expand("$p0", values.get)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", (0, 0, 0)), ("3.6", (3, 6, 0)), ("3.10.2", (3, 10, 2)), (" 2", (2, 0, 0)), ("+1", (1, 0, 0))],
)
def test_compatibility_level(text: str, numbers: tuple[int, int, int]) -> None:
    assert compatibility_level(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "3.", ".6", "3.6.1.1", "-1", "3.1024", "3 .6", "٣"])
def test_faulty_compatibility_level(text: str) -> None:
    with pytest.raises(ExpansionError, match=r"is not of the form 3\.6"):
        compatibility_level(text)


def test_parameters_are_layers() -> None:
    parameters = Parameters({"a": "$b", "c": ""}, {"b": "below", "c": "hidden"})
    assert dict(parameters) == {"a": "below", "c": "", "b": "below"}
    assert list(parameters) == ["a", "c", "b"]
    assert len(parameters) == 3
    assert "b" in parameters
    assert "d" not in parameters
    assert parameters.get("d", "none") == "none"
    with pytest.raises(KeyError):
        parameters["d"]


def test_an_override_reaches_what_refers_to_it() -> None:
    parameters = Parameters({"a": "$b", "b": "below"})
    assert parameters["a"] == "below"
    assert parameters.overlaid({"b": "above"})["a"] == "above"


def test_a_value_that_cannot_be_expanded_is_given_as_it_is_written() -> None:
    parameters = Parameters({"broken": "${x", "user": "$broken"})
    assert parameters["broken"] == "${x"
    assert parameters["user"] == "$broken"
    with pytest.raises(ExpansionError) as caught:
        parameters.expanded("user")
    assert str(caught.value) == 'the value of user cannot be expanded: "${x" lacks its closing brace'


def test_values_for_delivery_time_stay_as_they_are() -> None:
    parameters = Parameters({"forward_path": "$home/.forward", "other": "$forward_path"})
    assert parameters["forward_path"] == "$home/.forward"
    assert parameters["other"] == "/.forward"


SYNTAX = st.text(st.sampled_from(list("${}()?:<>=! \t\n#ab1_,\\\0é")), max_size=60)


@given(st.text() | SYNTAX)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parameters = parse(text)
    except FileError as error:
        parameters = {}
        line = error.line
    else:
        line = 1
    assert 1 <= line <= text.count("\n") + 1
    assert set(dict(Parameters(parameters))) == set(parameters)


@given(SYNTAX, st.dictionaries(st.sampled_from(["a", "b", "ab", "1", "_", ""]), SYNTAX, max_size=4))
def test_any_value_is_expanded_or_refused(text: str, values: dict[str, str]) -> None:
    with suppress(ExpansionError):
        assert isinstance(expand(text, values.get), str)


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.from_regex(r"(?:[!-~]+ )*[!-~]+", fullmatch=True))
)
def test_settings_survive_any_layout(settings: dict[str, str]) -> None:
    text = "".join(f"{name} =\n\n  # comment\n\t{value}\r\n" for name, value in settings.items() if value[0] != "#")
    assert parse(text) == {name: value for name, value in settings.items() if value[0] != "#"}


LAYER = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from(["x", "$a", "${b}-$c", "${d?{$e}:{$f}}", "$(f)", ""])
)


@given(compiled=LAYER, own=LAYER, above=LAYER)
def test_all_items_are_what_one_gets_one_by_one(
    compiled: dict[str, str], own: dict[str, str], above: dict[str, str]
) -> None:
    defaults = Parameters(compiled)
    instances = defaults.overlaid(own, {"g": "$a"})
    daemons = instances.overlaid(above)
    for parameters, layers in (
        (defaults, [compiled]),
        (instances, [own, {"g": "$a"}, compiled]),
        (daemons, [above, own, {"g": "$a"}, compiled]),
    ):
        assert dict(parameters.items()) == {name: parameters[name] for name in parameters}
        assert dict(parameters.items()) == dict(Parameters(*layers).items())


def test_parameters_above_none() -> None:
    assert dict(Parameters().overlaid({"a": "$b", "b": "x"}).items()) == {"a": "x", "b": "x"}
