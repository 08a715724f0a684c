"""TOML text in, rule sets and configuration out: every mistake is collected and told with its key path."""

from chrootsync.rules.config import parse_config
from chrootsync.rules.keys import schema
from chrootsync.rules.ruleset import parse
from chrootsync.rules.shelf import shelved

__all__ = ["parse", "parse_config", "schema", "shelved"]
