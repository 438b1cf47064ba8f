import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # Small tensors: a second thread costs more than it brings, and sums keep one order.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.default_generator.manual_seed(0)
