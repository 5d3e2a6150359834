"""Which warnings fail a test: those of this package and of its tests, not those of others."""

import warnings

import pytest


def warn_from(module: str, category: str) -> None:
    """Warn in a module."""
    exec(f"import warnings; warnings.warn('look out', {category})", {"__name__": module})


@pytest.mark.parametrize("category", ["UserWarning", "DeprecationWarning", "FutureWarning"])
@pytest.mark.parametrize("module", ["zoorecall", "zoorecall.grid.axes", "conftest", "test_train"])
def test_a_warning_of_this_package_or_of_its_tests_is_an_error(module, category):
    with pytest.raises(Warning, match="look out"):
        warn_from(module, category)


@pytest.mark.parametrize("category", ["UserWarning", "DeprecationWarning", "FutureWarning"])
@pytest.mark.parametrize("module", ["torch.jit._script", "zoorecaller", "xdist.workermanage"])
def test_a_warning_of_another_package_is_none(module, category):
    with warnings.catch_warnings(record=True) as caught:  # keeps the filters
        warn_from(module, category)
    assert len(caught) == 1


def test_a_deprecated_function_of_another_package_that_this_one_calls_is_an_error():
    with pytest.raises(DeprecationWarning, match="look out"):
        warn_from_callee("zoorecall.model")


def warn_from_callee(caller: str) -> None:
    """Raise a warning as deprecated functions do, at the line that calls them."""
    names = {"__name__": "torch.jit._script"}
    exec("def old(): import warnings; warnings.warn('look out', DeprecationWarning, 2)", names)
    exec("old()", {"__name__": caller, "old": names["old"]})
