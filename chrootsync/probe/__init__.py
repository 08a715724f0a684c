"""Proof that lookups work inside a chroot: each is done there as a daemon does it, and once more outside.

What is looked up follows from what the rules say that the chroot needs (:mod:`needs`, :mod:`plan`). It is done in fresh
processes that give their rights away before they look at anything in the chroot (:mod:`looking`, :mod:`asking`,
:mod:`child`); what these say is checked for its form, and never taken for more than text (:mod:`answers`). Nothing is
written, nothing is remembered. Most repairs find nothing to do, and load :mod:`needs` and :mod:`asking` alone.
"""
