"""Every test ends: pytest-timeout fails one that hangs, and faulthandler ends one that does not even react to that."""

import faulthandler
import os
from collections.abc import Generator

import hypothesis
import pytest

SECONDS = 120
SLOW_SECONDS = 1200
GRACE_SECONDS = 20  # a test that hangs in C code gets no Python signal; then all stacks are dumped and pytest ends

STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # A loaded machine is slow, not wrong; what hangs is ended here.
    hypothesis.settings.register_profile("project", deadline=None, max_examples=50)
    hypothesis.settings.load_profile("project")
    # Output is captured while tests run; this descriptor still leads to the terminal.
    config.stash[STDERR] = os.dup(2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS if item.get_closest_marker("slow") else SECONDS))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    marker = item.get_closest_marker("timeout")
    assert marker
    seconds = marker.args[0] if marker.args else marker.kwargs["timeout"]
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
