"""The file system tree that is worked on: the sole way to a path inside a root.

``walk`` finds places, ``files`` is what was found, ``contents`` reads and compares it, ``read`` is the Reader that sees
everything and changes nothing, ``write`` the Writer that only a repair gets, made of ``dress`` (owners, modes, ACLs)
and ``swap`` (names); ``kernel`` is what Python lacks of the kernel.
"""

from chrootsync.root.read import Root

__all__ = ["Root"]
