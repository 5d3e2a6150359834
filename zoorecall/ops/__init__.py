"""Sequence operations without parameters: a fast form and a reference of each."""
