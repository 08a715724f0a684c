"""The path walker, and what reads and writes through it."""
