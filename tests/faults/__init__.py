"""Errors change nothing and crashes tear nothing: repairs that are killed, refused, cut off from power and crowded out.

``warm`` runs chrootsync in hundredths of a second, ``tracing`` puts faults into its system calls, ``stage`` has the
machine on which all of this happens and tells what may be found there afterwards.
"""
