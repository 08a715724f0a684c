"""Keeps chroots in sync with their host."""

__version__ = "0.1.0"
