"""Runs inside the container and measures, for ``benchmarks.watcher``, what keeps chroots in sync there; prints JSON."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

SOURCE = "/etc/resolv.conf"
COPIES = tuple(f"/var/spool/{name}{SOURCE}" for name in ("postfix", "postfix-in", "postfix-out"))
LOCKS = "/run/chrootsync/*.lock"
LOST = 15.0  # seconds after which a change counts as lost
TICKS = os.sysconf("SC_CLK_TCK")
CHECK = ("/usr/local/bin/chrootsync", "check", "--fix", "--quiet", "--wait", "30", "--no-reload")


def main() -> None:
    """Do what the first argument names, with the others as numbers."""
    name, *numbers = sys.argv[1:]
    actions: Mapping[str, Callable[..., object]] = {
        "latency": latency,
        "by_hand": by_hand,
        "idle": idle,
        "burst": burst,
        "bare": bare,
    }
    json.dump(actions[name](*map(int, numbers)), sys.stdout)


def latency(first: int, count: int) -> list[float | None]:
    """Milliseconds from the rename of the source to three copies in sync; None where a change was lost."""
    return [_changed(number, lambda: None) for number in range(first, first + count)]


def by_hand(first: int, count: int) -> list[float | None]:
    """The same where nobody watches: what a repair alone takes, started at the moment of the rename."""
    return [_changed(number, lambda: subprocess.run(CHECK, check=True)) for number in range(first, first + count)]


def _changed(number: int, then: Callable[[], object]) -> float | None:
    _wait_for_peace()
    text = _prepared(number)
    began = time.perf_counter()
    os.rename(f"{SOURCE}.new", SOURCE)
    then()
    return (time.perf_counter() - began) * 1000 if _synced(text, began) else None


def _prepared(number: int) -> bytes:
    """Write what is to replace the source, which no other number makes; gives its contents."""
    text = b"nameserver 127.0.0.5\n# change %d\n" % number
    with open(f"{SOURCE}.new", "wb") as file:
        file.write(text)
    return text


def _synced(text: bytes, began: float) -> bool:
    """Wait until all copies are this text; not for ever."""
    while any(_contents(copy) != text for copy in COPIES):
        if time.perf_counter() - began > LOST:
            return False
        time.sleep(0.001)
    return True


def _contents(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _wait_for_peace() -> None:
    """Wait until no repair has been under way for a while: what a path unit starts misses changes meanwhile."""
    since = time.monotonic()
    while time.monotonic() - since < 0.7:
        if glob.glob(LOCKS):
            since = time.monotonic()
        time.sleep(0.01)


def idle(pid: int, seconds: int) -> dict[str, float]:
    """What a process costs while nothing changes."""
    _wait_for_peace()
    before = _usage(pid)
    time.sleep(seconds)
    after = _usage(pid)
    return {
        "resident_mb": _resident(pid),
        "cpu_ms": (after["running_ns"] - before["running_ns"]) / 1e6,
        "wake_ups": after["switches"] - before["switches"],
        "threads": after["threads"],
        "seconds": seconds,
    }


def burst(pid: int, count: int) -> dict[str, float]:
    """What ``count`` new files beside the source cost a process, and the children that it starts, in seconds of CPU.

    ``lost`` is 1 where a change of the source in the middle of it was lost.
    """
    _wait_for_peace()
    before = _cpu(pid)
    for number in range(count):
        os.close(os.open(f"/etc/burst-{number}", os.O_WRONLY | os.O_CREAT, 0o644))
    text = _prepared(9_000_000)
    os.rename(f"{SOURCE}.new", SOURCE)
    for number in range(count):
        os.unlink(f"/etc/burst-{number}")
    synced = _synced(text, time.perf_counter())
    time.sleep(2)
    _wait_for_peace()
    after = _cpu(pid)
    return {"own_s": after[0] - before[0], "children_s": after[1] - before[1], "lost": float(not synced)}


def bare() -> dict[str, float]:
    """The resident memory of an interpreter that does nothing."""
    program = "import time; time.sleep(60)"
    child = subprocess.Popen(["/opt/chrootsync/bin/python", "-I", "-S", "-c", program])
    time.sleep(1)
    try:
        return {"resident_mb": _resident(child.pid)}
    finally:
        child.kill()
        child.wait()


def _usage(pid: int) -> dict[str, int]:
    tasks = glob.glob(f"/proc/{pid}/task/*")
    running = [int(_read(f"{task}/schedstat").split()[0]) for task in tasks]
    switches = [_field(f"{task}/status", "voluntary_ctxt_switches") for task in tasks]
    return {"running_ns": sum(running), "switches": sum(switches), "threads": len(tasks)}


def _resident(pid: int) -> float:
    return _field(f"/proc/{pid}/status", "VmRSS") / 1024


def _cpu(pid: int) -> Sequence[float]:
    """Seconds of CPU of a process, and of its children that have ended."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS, (int(fields[13]) + int(fields[14])) / TICKS


def _field(path: str, name: str) -> int:
    line = next(line for line in _read(path).splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    main()
