"""One headless Chromium for the tests of a module: it would keep its memory and its helpers to the end of the run.

Where there is none these tests are skipped with the reason. Where CHROOTSYNC_REQUIRE_SYSTEM is set, as in continuous
integration, such a skip is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, program


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser; each test opens what it wants to look at."""
    if program() is None:
        reason = "needs a Chromium (scripts/setup-system-tests installs it)"
        if os.environ.get("CHROOTSYNC_REQUIRE_SYSTEM", "0") not in {"", "0"}:
            pytest.fail(f"CHROOTSYNC_REQUIRE_SYSTEM is set, but a test cannot run: {reason}", pytrace=False)
        pytest.skip(reason)
    with Chromium(tmp_path_factory.mktemp("chromium") / "profile") as chromium:
        yield chromium
