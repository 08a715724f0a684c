"""What is read out of main.cf and master.cf is what the real postconf(1) reads out of them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from chrootsync.providers.postfix import defaults

from .container import Container
from .postconf_agreement import (
    RUN_POSTCONF,
    Answer,
    Case,
    compare,
    generated_configurations,
    hand_written_configurations,
    settings,
)

pytestmark = pytest.mark.system

SEED = 1
COUNT = 150

Answers = Mapping[str, list[Answer]]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return hand_written_configurations() + generated_configurations(SEED, COUNT)


@pytest.fixture(scope="module")
def answers(container: Container, cases: list[Case]) -> Answers:
    """What postconf says to all cases, asked in one go; its defaults under the empty name."""
    texts = json.dumps({case.name: [case.main, case.master] for case in cases})
    results = json.loads(container.run(["python3", "-c", RUN_POSTCONF], input=texts, timeout=300).stdout)
    return {name: [Answer(code=code, output=output) for code, output in runs] for name, runs in results.items()}


def test_configurations_are_read_as_postconf_reads_them(cases: list[Case], answers: Answers) -> None:
    compiled = settings(answers[""][0].output)
    differences = [line for case in cases for line in compare(case, answers[case.name], compiled)]
    assert differences == []


def test_the_cases_are_worth_comparing(answers: Answers) -> None:
    """Most are accepted, and some are not."""
    refused = sum(any(answer.code for answer in runs) for runs in answers.values())
    assert len(answers) * 0.05 < refused < len(answers) * 0.5


def test_the_table_of_defaults_is_what_debian_compiled_in(answers: Answers) -> None:
    compiled = settings(answers[""][0].output)
    table = defaults.table({"ID": "debian", "VERSION_ID": "12"})
    for name in ("myhostname", "mydomain"):  # the host's name
        table.pop(name)
    assert {name: compiled.get(name) for name in table} == table
