"""Sequence operations without parameters: a reference of each and its fast forms."""
