"""The file system tree that is worked on: the sole way to a path inside a root.

``walk`` finds places, ``contents`` reads and compares, ``read`` is the Reader that sees everything and changes nothing,
``write`` the Writer that only a repair gets, ``kernel`` the few system calls that Python lacks.
"""

from chrootsync.root.read import Root
from chrootsync.root.write import Writer

__all__ = ["Root", "Writer"]
