"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def describe(place: str) -> dict[str, object]:
    """The machine, and the file system of ``place``, where the data sets lie."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": _system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": _file_system(place),
        "load": round(os.getloadavg()[0], 2),
    }


def sentence(machine: dict[str, object]) -> str:
    """The same for people."""
    return (
        f"{machine['date']}: {machine['processors']} x {machine['processor']}, {machine['memory_gb']} GB, "
        f"{machine['file_system']}; {machine['system']}, Linux {machine['kernel']}; load {machine['load']} before"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _file_system(place: str) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=False)
    return done.stdout.strip().replace("ext2/ext3", "ext4") or "unknown"
