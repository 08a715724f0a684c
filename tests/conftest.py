"""Settings that all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# They say at the end of a run how much was tried, whichever process tried it.
pytest_plugins = ["tests.faults.counting", "tests.hostile.counting"]

# A deadline for a single case fails for no reason where cores are shared.
settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("default")

# A shell starts its background jobs with SIGINT ignored, nohup(1) its command with SIGHUP; what is tested here would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where tests leave what people may want to look at: $CHROOTSYNC_ARTIFACTS, else build/artifacts."""
    place = Path(os.environ.get("CHROOTSYNC_ARTIFACTS") or Path(__file__).parents[1] / "build" / "artifacts")
    place.mkdir(parents=True, exist_ok=True)
    return place
