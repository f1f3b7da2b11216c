"""Measurements, not tests: `python -m tests.bench [name ...]` prints tables; nothing here passes or fails.

Absolute times are those of one machine on one day. What is compared is measured in turn, in the same run, so that
the ratios mean something elsewhere too.
"""
