"""What all runs of these tests read."""

from pathlib import Path

import pytest

from pipeline import log
from tests.small_models import make_data

log.quieten_imports()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenized data sets `train` and `validation`."""
    return make_data(tmp_path_factory.mktemp("data"))
