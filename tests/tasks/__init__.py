"""The tasks: what holds of all of them, and the oracle of each.

A task's file, `test_NAME.py`, has what `test_every_task.py` asks of every task:

    solve(config, tokens)   a brute-force solver's answer to the last of the tokens
    configs()               a strategy of valid configs, small ones among them
    PINS                    configs, each with the hash of some of its examples
    SMALL, LARGE, FEW       configs: quick ones, the papers', and those of which examples repeat
    IMPOSSIBLE, REFUSED     options that do not fit, each with what is said; options that are none

Shape letters: n examples, L length, Q queries, K pairs, V vocabulary, S slots.
"""

import pytest

pytest.register_assert_rewrite("tasks.making")
