"""Training: a pack of runs, from its initial weights to its results. It knows nothing of files."""
