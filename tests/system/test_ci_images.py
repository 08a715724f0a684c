"""examples/ci-image, executed on a Debian as debootstrap makes it: the script, and the commands of the other files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
import xmlschema
import yaml  # type: ignore[import-untyped]  # likewise

from . import image
from .image import PROJECT
from .workshop import Workshop

EXAMPLE = PROJECT / "examples" / "ci-image"
SCHEMAS = PROJECT / "tests" / "schemas"
DOCUMENT = (PROJECT / "docs" / "ci-images.md").read_text()
PROGRAMS = "/opt/chrootsync/bin"


@pytest.fixture(scope="module")
def workshop(chrootsync: tuple[Path, ...], base: Path) -> Iterator[Workshop]:
    """A host with chrootsync, and a folder of a pipeline with the example, which somebody else has checked out."""
    with Workshop([*chrootsync, base], {"mail": [image.rootfs("bookworm")]}) as made:
        for path in (path for path in EXAMPLE.rglob("*") if path.is_file()):
            made.write(f"/job/ci-image/{path.relative_to(EXAMPLE)}", path.read_bytes())
        made.shell("chmod 755 /job/ci-image/check-image.sh; ln -s /srv/mail /job/rootfs; chown -R nobody /job/ci-image")
        yield made


@pytest.fixture
def stale(workshop: Workshop) -> Workshop:
    """The same with chroots as the packages left them, and no reports."""
    script = """
        rm -rf /job/reports /reports /image /ci-image
        cd /srv/mail/var/spool/postfix
        rm -rf etc lib usr
        mkdir etc lib usr
        printf 'nameserver 192.0.2.53\\n' > /srv/mail/etc/resolv.conf
    """
    workshop.shell(script)
    return workshop


def job(workshop: Workshop, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of a pipeline, in its folder, as a shell of such a system runs it."""
    path = f"PATH={PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin"
    variables = [path, *(f"{name}={value}" for name, value in environment.items())]
    return workshop.run(["env", "-C", "/job", *variables, "bash", "-euo", "pipefail", "-c", command], check=False)


def fix(workshop: Workshop) -> None:
    assert job(workshop, "chrootsync check --fix --root rootfs --quiet").returncode == 0


def report(workshop: Workshop) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((workshop.root / "job/reports/chrootsync.json").read_text())
    return loaded


# --- The script -------------------------------------------------------------------------------------------------------


CHECK = "ci-image/check-image.sh rootfs reports postfix"


def test_drift_fails_the_job_and_is_in_each_report(stale: Workshop) -> None:
    done = job(stale, CHECK)
    assert (done.returncode, done.stderr) == (1, "")
    drifted = report(stale)["summary"]["drift"]
    assert drifted > 3
    reports = stale.root / "job" / "reports"

    junit = reports / "chrootsync.junit.xml"
    xmlschema.XMLSchema(str(SCHEMAS / "junit-10.xsd")).validate(str(junit))
    assert junit.read_text().count("<failure") == drifted
    sarif = json.loads((reports / "chrootsync.sarif").read_text())
    jsonschema.Draft7Validator(json.loads((SCHEMAS / "sarif-2.1.0.json").read_text())).validate(sarif)
    assert len(sarif["runs"][0]["results"]) == drifted
    assert (reports / "chrootsync.html").read_text().startswith("<!DOCTYPE html>")


def test_what_was_repaired_passes(stale: Workshop) -> None:
    fix(stale)
    done = job(stale, CHECK)
    assert (done.returncode, done.stderr) == (0, "")
    assert report(stale)["status"] == "in-sync"


def test_a_warning_fails_the_job(stale: Workshop) -> None:
    fix(stale)
    stale.shell("touch /srv/mail/var/spool/postfix/etc/ssl/certs/00000000.0")
    assert job(stale, CHECK).returncode == 1
    assert report(stale)["summary"]["by_kind"] == {"orphan": 1}


def test_the_placeholder_for_resolv_conf_that_images_have_does_not(stale: Workshop) -> None:
    fix(stale)
    stale.shell(": > /srv/mail/etc/resolv.conf")
    assert job(stale, CHECK).returncode == 0
    # The rule of the example makes the difference.
    assert job(stale, "chrootsync check --root rootfs --quiet").returncode == 1


def test_an_image_without_the_instance_fails_the_job(stale: Workshop) -> None:
    fix(stale)
    done = job(stale, "ci-image/check-image.sh rootfs reports postfix postfix-out")
    assert (done.returncode, done.stderr) == (
        2,
        "chrootsync: there is no instance 'postfix-out' here; there is: postfix\n",
    )


def test_on_github_each_drift_is_an_annotation(stale: Workshop) -> None:
    fix(stale)
    stale.shell("echo stale > /srv/mail/var/spool/postfix/etc/services")
    lines = job(stale, CHECK, GITHUB_ACTIONS="true").stdout.splitlines()
    [error] = [line for line in lines if line.startswith("::error")]
    assert "file=var/spool/postfix/etc/services" in error


def test_without_arguments_it_says_how_it_is_called(stale: Workshop) -> None:
    done = job(stale, "ci-image/check-image.sh rootfs")
    assert (done.returncode, done.stderr) == (2, "check-image.sh DIRECTORY REPORTS [INSTANCE]...\n")


def test_it_leaves_nothing_but_the_reports(stale: Workshop) -> None:
    fix(stale)
    with stale.untouched("/srv/mail", "/job/ci-image"):
        job(stale, CHECK)
    assert stale.shell("ls -A /tmp") == ""
    names = {path.name for path in (stale.root / "job/reports").iterdir()}
    assert names == {f"chrootsync.{end}" for end in ("html", "json", "junit.xml", "sarif")}


# --- What the other files have their systems run ----------------------------------------------------------------------


def steps() -> list[str]:
    """The commands of github.yml and gitlab-ci.yml that need neither a network nor Docker."""
    [github] = yaml.safe_load((EXAMPLE / "github.yml").read_text())["jobs"].values()
    gitlab = yaml.safe_load((EXAMPLE / "gitlab-ci.yml").read_text())["chroots"]
    commands = [step["run"] for step in github["steps"] if "run" in step] + gitlab["script"]
    return [command.replace("sudo ", "") for command in commands if "rootfs reports" in command or "check" in command]


def test_the_steps_are_these() -> None:
    assert len(steps()) == 3


@pytest.mark.parametrize("command", steps())
def test_the_steps_pass_where_nothing_is_stale(command: str, stale: Workshop) -> None:
    fix(stale)
    done = job(stale, command)
    assert (done.returncode, done.stderr) == (0, "")


def test_gitlab_repairs_before_it_checks(stale: Workshop) -> None:
    gitlab = yaml.safe_load((EXAMPLE / "gitlab-ci.yml").read_text())["chroots"]
    assert [job(stale, command).returncode for command in gitlab["script"][1:]] == [0, 0]
    assert (stale.root / "job" / gitlab["artifacts"]["reports"]["junit"]).exists()


def test_github_uploads_what_is_there(stale: Workshop) -> None:
    [github] = yaml.safe_load((EXAMPLE / "github.yml").read_text())["jobs"].values()
    [check] = [step["run"] for step in github["steps"] if "check-image.sh" in step.get("run", "")]
    assert job(stale, check.replace("sudo ", "")).returncode == 1
    uploads = [step for step in github["steps"] if "if" in step]
    assert [step["if"] for step in uploads] == ["always()", "always()"]
    for step in uploads:
        assert (stale.root / "job" / (step["with"].get("sarif_file") or step["with"]["path"])).exists()


def test_the_steps_of_the_dockerfile_repair_and_check(stale: Workshop) -> None:
    """A builder mounts the image where ``target`` says; here it is linked to there."""
    text = (EXAMPLE / "Dockerfile").read_text().replace("\\\n", "")
    repair, check = re.findall(r"^RUN --mount=type=bind,from=\w+,target=/image(?:,rw)? +(.*)$", text, re.MULTILINE)
    stale.shell("ln -s /srv/mail /image; ln -s /job/ci-image /ci-image; rm -rf /chroot")
    assert job(stale, check).returncode == 1
    assert job(stale, repair).returncode == 0
    assert job(stale, check).returncode == 0
    # What is set aside is all that the repair wrote: put into a chroot as it was, it makes that one whole.
    stale.shell("cd /srv/mail/var/spool/postfix; rm -rf etc lib usr; cp -a /chroot/. .")
    assert job(stale, check).returncode == 0


def commands() -> list[str]:
    """What docs/ci-images.md shows to be typed."""
    return [line.strip() for line in re.findall(r"^    ((?:chrootsync|examples/).*)$", DOCUMENT, re.MULTILINE)]


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_documentation_work(command: str, stale: Workshop) -> None:
    fix(stale)
    done = job(stale, command.replace("examples/", "").replace(" /mnt/image", " rootfs"))
    assert (done.returncode, done.stderr) == (0, "")
