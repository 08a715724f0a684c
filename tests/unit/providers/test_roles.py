"""What an instance is for, by its name or its ports."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from chrootsync import providers
from chrootsync.model import Daemon, Instance
from chrootsync.providers.postfix.roles import guess

DELIVERS = Daemon(name="smtp/unix", program="smtp", chrooted=True)


def listens(name: str, program: str = "smtpd", parameters: Mapping[str, str] | None = None) -> Daemon:
    return Daemon(name=f"{name}/inet", program=program, chrooted=True, parameters=parameters or {})


def instance(name: str, *daemons: Daemon, provider: str = "postfix", problem: str | None = None) -> Instance:
    return Instance(
        name=name,
        service=provider,
        provider=provider,
        chroot="/jail",
        found="",
        daemons=(*daemons, DELIVERS),
        problem=problem,
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("postfix-submission", "submission"),
        ("postfix-msa", "submission"),
        ("postfix-in", "input"),
        ("postfix_input", "input"),
        ("mx2", "input"),
        ("mail.inbound", "input"),
        ("postfix-out", "output"),
        ("Postfix-OUT-2", "output"),
        ("outgoing", "output"),
    ],
)
def test_the_name_tells_whatever_the_ports(name: str, role: str) -> None:
    assert guess(instance(name, listens("10025"))) == role
    assert guess(instance(name, listens("25"), listens("587"))) == role


@pytest.mark.parametrize("name", ["postfix", "inner", "pinout", "postfix-main", "output-in", "", "\udcff"])
def test_a_name_without_such_a_word_or_with_several_leaves_it_to_the_ports(name: str) -> None:
    assert guess(instance(name, listens("587"))) == "submission"


@pytest.mark.parametrize(
    ("daemons", "role"),
    [
        ([listens("587")], "submission"),
        ([listens("submission"), listens("465")], "submission"),
        ([listens("[2001:db8::1]:submissions")], "submission"),
        ([listens("25")], "input"),
        ([listens("smtp")], "input"),
        ([listens("192.0.2.1:25")], "input"),
        ([listens("smtp", "postscreen")], "input"),
        ([listens("smtp", parameters={"inet_interfaces": "192.0.2.1, localhost"})], "input"),
        ([listens("smtp", parameters={"inet_interfaces": ""})], "input"),
        ([listens("127.0.0.1:25")], "submission"),
        ([listens("[::1]:smtp")], "submission"),
        ([listens("smtp", parameters={"inet_interfaces": "loopback-only"})], "submission"),
        ([listens("smtp", parameters={"inet_interfaces": "127.0.0.1, [::1]"})], "submission"),
        ([listens("25"), listens("587")], ""),
        ([listens("127.0.0.1:25"), listens("587")], "submission"),
        ([listens("10025")], "output"),
        ([listens("25", "qmqpd")], "output"),
        ([], "output"),
    ],
)
def test_else_the_ports_tell(daemons: list[Daemon], role: str) -> None:
    assert guess(instance("postfix", *daemons)) == role


def test_who_neither_listens_nor_delivers_has_no_role() -> None:
    idle = Instance(name="postfix", service="postfix", provider="postfix", chroot="/jail", found="")
    assert guess(idle) == ""


def test_only_of_what_can_be_served_and_is_known_a_role_is_guessed() -> None:
    assert providers.role(instance("postfix-in")) == "input"
    assert providers.role(instance("postfix-in", problem="broken")) == ""
    assert providers.role(instance("named-in", provider="static")) == ""
