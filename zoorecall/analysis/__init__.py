"""From tables to answers: pure functions on the frames of `load_results`."""
