"""A pytest plugin (-p sample): with --emulation-sample a few cases of each test run, emulated or on a GPU.

Of a test or a case marked `sample("all")` or `sample("none")`, all or none do.
"""

import pytest


def pytest_addoption(parser):
    parser.addoption("--emulation-sample", action="store_true", help="run some cases of each test (sample_of)")


@pytest.hookimpl(trylast=True)  # after those that are deselected by their marks
def pytest_collection_modifyitems(config, items):
    if not config.getoption("--emulation-sample"):
        return
    functions = {}
    sample = set()
    for item in items:
        marked = item.get_closest_marker("sample")
        if not marked:
            functions.setdefault(item.nodeid.split("[")[0], []).append(item)
        elif marked.args == ("all",):
            sample.add(item)
    sample.update(item for cases in functions.values() for item in sample_of(cases))
    config.hook.pytest_deselected(items=[item for item in items if item not in sample])
    items[:] = [item for item in items if item in sample]


def sample_of(cases):
    """Few cases of a test, in which each value of each of its parameters occurs."""
    values = {case: {()} for case in cases}
    for case in cases:
        if hasattr(case, "callspec"):
            values[case] = {(name, repr(value)) for name, value in case.callspec.params.items()}
    missing, sample = set().union(*values.values()), []
    while missing:
        sample.append(max(cases, key=lambda case: len(values[case] & missing)))
        missing -= values[sample[-1]]
    return sample
