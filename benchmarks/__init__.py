"""Measures chrootsync beside floors and peers, in the same run: machines drift, ratios hold."""
