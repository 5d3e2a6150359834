"""Sweeps: the packs of a grid, trained by processes, into a results folder."""
