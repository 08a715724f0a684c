"""``python -m benchmarks.host``: a clean check of three real instances beside Debian's own tools, in one run.

Needs root and Debian: it boots the throw-away container of the system tests and touches nothing else. What Debian's
script does at every start (copy, whether it is needed or not) and what ``postfix check`` does (compare, as a shell
script) is not what ``chrootsync check`` does, but it is what an administrator has without it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.system import conftest, image
from tests.system.container import Container, remove_stale_groups

INSTANCES = "- postfix-in postfix-out"
ROUNDS = 11

# Runs inside the container, beside a copy of measure.py.
PROGRAM = f"""
import sys
sys.path.insert(0, "/var/tmp")
from measure import Command, interleaved, ratio
from statistics import median

debian = "for name in {INSTANCES}; do /usr/lib/postfix/configure-instance.sh $name; done"
python = "/opt/chrootsync/bin/python"
commands = [
    Command(name="chrootsync check", steps=(("/usr/local/bin/chrootsync", "check", "--quiet"),)),
    Command(name="python -I -S -c pass", steps=((python, "-I", "-S", "-c", "pass"),)),
    Command(name="configure-instance.sh, three times", steps=(("/bin/sh", "-c", debian),)),
    Command(name="postfix check, all instances", steps=(("/usr/sbin/postfix", "check"),)),
]
samples = interleaved(commands, {ROUNDS})
ours = samples["chrootsync check"]
print(f"{{'':36}} {{'median ms':>9}} {{'min-max ms':>15}} {{'check / it':>10}}")
for name, runs in samples.items():
    spread = f"{{min(runs):.1f}}-{{max(runs):.1f}}"
    print(f"{{name:36}} {{median(runs):9.1f}} {{spread:>15}} {{ratio(ours, runs):10.3f}}")
"""


def main() -> None:
    """Boot the container, bring the instances in sync, and measure there."""
    reason = conftest.why_not()
    if reason is not None:
        raise SystemExit(f"benchmarks.host {reason}")
    remove_stale_groups()
    with tempfile.TemporaryDirectory(prefix="chrootsync-bench-") as place:
        base = image.base()
        dependencies = image.dependencies(base)
        project = image.project([dependencies, base], Path(place) / "layer")
        with Container([project, dependencies, image.instances(base), base]) as host:
            host.run(["chrootsync", "check", "--fix", "--quiet"])
            host.write("/var/tmp/measure.py", Path(__file__).with_name("measure.py").read_text())  # noqa: S108 -- in the container
            print(host.run(["/usr/bin/python3", "-c", PROGRAM], timeout=600).stdout, end="")


if __name__ == "__main__":
    main()
