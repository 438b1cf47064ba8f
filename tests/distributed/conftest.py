from pathlib import Path

import pytest
from four_processes import FourProcesses


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("distributed")


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """Runs functions in 1 to 4 processes of torch.distributed, over gloo."""
    made = FourProcesses(tmp_path_factory.mktemp("processes"))
    yield made
    made.stop()
