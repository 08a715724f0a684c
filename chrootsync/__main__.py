"""The console script, and ``python -m chrootsync``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line; an interrupt while it is still being loaded ends like any other."""
    # Nothing that is loaded becomes garbage. To look for it all the same, now and once more at the end, is a sixth of
    # a check's time; the command line lets that begin with what comes after.
    gc.disable()
    try:
        from chrootsync.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
