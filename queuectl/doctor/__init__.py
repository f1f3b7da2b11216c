"""Finds what is wrong with a spool, and repairs it without destroying anything."""
