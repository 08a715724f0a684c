"""The console script, and ``python -m chrootsync``."""

from chrootsync.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
