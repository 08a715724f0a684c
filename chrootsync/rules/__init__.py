"""TOML text in, rule sets and configuration out: every mistake is collected and told with its key path.

``chrootsync.rules.ruleset`` and ``config`` are imported by what needs them, never from here: a check whose rules were
read before must not pay for reading TOML.
"""
