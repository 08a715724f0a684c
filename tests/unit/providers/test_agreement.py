"""The comparison with postconf(1), as far as it goes without one: stable input, and no crash on any of it."""

from __future__ import annotations

from chrootsync.providers.postfix import main_cf, master_cf
from chrootsync.providers.postfix.main_cf import FileError
from tests.system.postconf_agreement import (
    Answer,
    Case,
    compare,
    generated_configurations,
    hand_written_configurations,
    render,
)

REFUSED = Answer(code=1, output="")
DEFAULTS = {"relayhost": "", "compatibility_level": "0"}


def test_generated_configurations_depend_on_the_seed_alone() -> None:
    assert generated_configurations(7, 5) == generated_configurations(7, 5)
    assert generated_configurations(7, 5) != generated_configurations(8, 5)


def test_every_configuration_is_read_or_refused() -> None:
    refused = set()
    for case in hand_written_configurations() + generated_configurations(1, 100):
        try:
            main_cf.parse(case.main)
            master_cf.parse(case.master)
        except FileError:
            refused.add(case.name)
    assert {"not-a-setting", "bad-service-type", "bad-chroot-field", "too-few-fields"} <= refused
    assert len(refused) < 30


def test_differences_are_found() -> None:
    case = Case(name="x", main="relayhost = a  b\n", master="smtp inet n - y - - smtpd -o a=b\n")
    line = "smtp       inet  n       -       y       -       -       smtpd -o a=b\n"
    agreed = (Answer(code=0, output="relayhost = a b\n"), Answer(code=0, output=line))
    override = Answer(code=0, output="smtp/inet/a = b\n")
    assert compare(case, (*agreed, override), DEFAULTS) == []
    assert compare(case, (REFUSED, *agreed[1:], override), DEFAULTS) == [
        "x: postconf -x ends with 1 where all is accepted here"
    ]
    other = Answer(code=0, output="relayhost = ab\n")
    assert compare(case, (other, agreed[1], override), DEFAULTS) == ["x: relayhost is 'a b' here, 'ab' for postconf"]
    assert len(compare(case, (agreed[0], Answer(code=0, output=""), REFUSED), DEFAULTS)) == 2


def test_services_are_shown_in_columns() -> None:
    [service] = master_cf.parse("scalemail-backend unix - n n - 2 pipe -o {a=b c} {d e} {f g} h\n")
    assert render(service) == ("scalemail-backend unix - n       n       -       2       pipe -o {a=b c} d e {f g} h")
