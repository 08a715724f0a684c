"""Tests on real Postfix instances under a real systemd, in throw-away containers that the tests make themselves."""
