"""Three-valued logic: True, False, or None where seeds, a grid's edge or missing runs leave open.

One seed has no interval (NaN), and every comparison with NaN is open here, so that no finding rests
on a single seed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[Any, Any]


def all_of(values: Iterable[bool | None]) -> bool | None:
    """False if one is, else open if one is or there are none."""
    found = list(values)
    if False in found:
        return False
    return None if None in found or not found else True


def any_of(values: Iterable[bool | None]) -> bool | None:
    """True if one is, else open if one is or there are none."""
    found = list(values)
    if True in found:
        return True
    return None if None in found or not found else False


def above(row: Row, name: str, threshold: float) -> bool | None:
    """Whether a number, by its interval in columns `name_low` and `name_high`, is above."""
    if row[f"{name}_low"] > threshold:
        return True
    return False if row[f"{name}_high"] <= threshold else None


def unsure(found: bool | None, at_edge: bool | None, edge: str) -> bool | None:
    """A finding, but open where it is `at_edge` and the grid's edge may be the reason."""
    return None if edge and found is at_edge else found


def within(row: Row, name: str, low: float, high: float) -> bool | None:
    """Whether the whole interval of a number lies between two bounds; not so if all of it is
    beyond one."""
    if low <= row[f"{name}_low"] and row[f"{name}_high"] <= high:
        return True
    return False if row[f"{name}_low"] > high or row[f"{name}_high"] < low else None


def agreed(verdicts: Iterable[str], yes: str, no: str) -> bool | None:
    """True if one verdict is `yes` and none `no`, False the other way round."""
    found = set(verdicts)
    return None if (yes in found) == (no in found) else yes in found
