"""master.cf: columns, arguments and what -o sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.providers.postfix.main_cf import FileError
from chrootsync.providers.postfix.master_cf import Service, parse


def only(arguments: str) -> Service:
    [service] = parse(f"smtp inet n - y - - smtpd {arguments}\n")
    return service


def test_columns() -> None:
    [service] = parse("# comment\n\n[::1]:10025\tunix-dgram  n - y 1000? 0 /usr/libexec/x  \n")
    assert service == Service(
        name="[::1]:10025",
        type="unix-dgram",
        private="n",
        unprivileged="-",
        chroot="y",
        wakeup="1000?",
        maxproc="0",
        command="/usr/libexec/x",
        arguments=(),
        overrides={},
    )


@pytest.mark.parametrize(
    ("text", "arguments", "overrides"),
    [
        ("", (), {}),
        ("-v -o a=b", ("-v", "-o", "a=b"), {"a": "b"}),
        ("-oa=b", ("-o", "a=b"), {"a": "b"}),
        ("-vo a=b", ("-v", "-o", "a=b"), {"a": "b"}),
        ("-osmtp_tls_policy_maps=x", ("-o", "smtp_tls_policy_maps=x"), {"smtp_tls_policy_maps": "x"}),
        ("-o { a = b c }", ("-o", "a=b c"), {"a": "b c"}),
        ("-o {a={x y} z}", ("-o", "a={x y} z"), {"a": "{x y} z"}),
        ("-o a={x y}", ("-o", "a={x y}"), {"a": "{x y}"}),
        ("-o a=${b?{c}:{d}}", ("-o", "a=${b?{c}:{d}}"), {"a": "${b?{c}:{d}}"}),
        ("-o a=", ("-o", "a="), {"a": ""}),
        ("-o a=1 -o a=2", ("-o", "a=1", "-o", "a=2"), {"a": "2"}),
        ("\n  # comment\n  -o\n\n\ta=b", ("-o", "a=b"), {"a": "b"}),
        ("-- -o a=b", ("--", "-o", "a=b"), {}),
        ("x -o a=b { two words } {one}", ("x", "-o", "a=b", "two words", "one"), {}),
        ("-", ("-",), {}),
    ],
)
def test_arguments(text: str, arguments: tuple[str, ...], overrides: dict[str, str]) -> None:
    service = only(text)
    assert service.arguments == arguments
    assert service.overrides == overrides


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("smtp inet n - y - -", "a service has 8 fields, not 7"),
        ("smtp tcp n - y - - smtpd", 'the type "tcp" is none of inet, unix, unix-dgram, fifo, pass'),
        ("smtp inet x - y - - smtpd", 'the private field "x" is none of y, n, -'),
        ("smtp inet n yes y - - smtpd", 'the unprivileged field "yes" is none of y, n, -'),
        ("smtp inet n - Y - - smtpd", 'the chroot field "Y" is none of y, n, -'),
        ("smtp inet n - y 1m - smtpd", 'the wakeup field "1m" is no number of seconds'),
        ("smtp inet n - y - -1 smtpd", 'the maxproc field "-1" is no number'),
        ("smtp inet n - y - - smtpd -o", '"-o" is followed by nothing'),
        ("smtp inet n - y - - smtpd -o x", '"-o x" is not of the form -o name=value'),
        ("smtp inet n - y - - smtpd -o {a = b", '"{a = b" lacks a closing brace'),
        ("smtp inet n - y - - smtpd -o {a=b}c", 'there is text after the closing brace of "{a=b}c"'),
        ("smtp inet n - y - - pipe x {a b", '"{a b" lacks a closing brace'),
    ],
)
def test_faulty_services(line: str, reason: str) -> None:
    with pytest.raises(FileError) as caught:
        parse(f"pickup unix n - y 60 1 pickup\n# comment\n{line}\n")
    assert str(caught.value) == f"line 3: {reason}"


WORD = st.text(st.sampled_from(list("abo=-{}$ \t\n#,.0\0é")), max_size=40)


@given(st.text() | st.builds("s inet n - y - - x {}\n{}".format, WORD, WORD))
def test_any_text_is_read_or_refused(text: str) -> None:
    services: list[Service] = []
    line = 1
    try:
        services = parse(text)
    except FileError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1
    assert all(service.command for service in services)
