"""The gradient noise scale against its definition."""

import math

import pytest
import torch
from torch import nn
from untouched import everything, same

from smoothout.gradient_noise import noise_scale


class Mean(nn.Module):
    """The loss of a sample x is w x, so that its gradient is x itself."""

    def __init__(self, features):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(features, dtype=torch.float64))

    def forward(self, inputs):
        return inputs @ self.w


def value(outputs, _targets):
    return outputs.mean()


def batches(count, size, mean, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.as_tensor(mean, dtype=torch.float64)
    for _ in range(count):
        yield mean + spread * torch.randn(size, len(mean), dtype=torch.float64, generator=generator), torch.zeros(size)


def test_equals_the_definition_on_one_batch():
    [(inputs, targets)] = batches(1, 60, [1.0, 2.0], 1.0)
    found = noise_scale(Mean(2), [(inputs, targets)], value, ghost_batch_size=10)
    small = torch.stack([part.mean(0) for part in inputs.split(10)])
    small_square, big_square = small.square().sum(1).mean(), inputs.mean(0).square().sum()
    # McCandlish et al., appendix A.1, with B_small = 10 and B_big = 60.
    square = (60 * big_square - 10 * small_square) / (60 - 10)
    variance = (small_square - big_square) / (1 / 10 - 1 / 60)
    assert found.square == pytest.approx(float(square))
    assert found.variance == pytest.approx(float(variance))
    assert found.value == pytest.approx(float(variance / square))
    assert math.isnan(found.standard_error)


def test_a_single_sample_too_many_is_left_out():
    [(inputs, targets)] = batches(1, 61, [1.0, 2.0], 1.0)
    whole = noise_scale(Mean(2), [(inputs[:60], targets[:60])], value, ghost_batch_size=10)
    assert noise_scale(Mean(2), [(inputs, targets)], value, ghost_batch_size=10) == whole


def test_is_unbiased_and_its_error_is_honest():
    """tr(Sigma) = 4 * 9 = 36 and |G|^2 = 4, so that B_simple is 9; z over independent estimates is standard normal."""
    errors = []
    for seed in range(60):
        data = batches(8, 200, [1.0] * 4, 3.0, seed)
        found = noise_scale(Mean(4), data, value, ghost_batch_size=20)
        errors.append((found.value - 9) / found.standard_error)
        assert not found.doubts
    assert abs(sum(errors) / 60) < 3 * 1.2 / math.sqrt(60)
    assert 0.5 < sum(abs(z) < 1 for z in errors) / 60 < 0.85


def test_of_one_batch_no_error_is_known():
    found = noise_scale(Mean(4), batches(1, 200, [1.0] * 4, 3.0, seed=0), value, ghost_batch_size=20)
    assert math.isnan(found.standard_error)
    assert found.doubts == ("one batch: its error is not known; give more batches",)


def test_where_there_is_no_gradient():
    found = noise_scale(Mean(3), batches(4, 40, [0.0] * 3, 1.0, seed=3), value, ghost_batch_size=10)
    assert found.doubts
    assert found.value > 40


def test_a_ragged_last_ghost_batch_is_left_out():
    [(inputs, targets)] = batches(1, 65, [1.0, 2.0], 1.0)
    ragged = noise_scale(Mean(2), [(inputs, targets)], value, ghost_batch_size=10)
    whole = noise_scale(Mean(2), [(inputs[:60], targets[:60])], value, ghost_batch_size=10)
    assert ragged == whole


def test_everything_stays_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))
    model[2].eval()
    before = everything(model)
    data = [(torch.randn(40, 4), torch.randint(0, 2, (40,)))]
    before = everything(model)
    first = noise_scale(model, data, ghost_batch_size=10)
    assert first == noise_scale(model, data, ghost_batch_size=10)
    after = everything(model)
    assert all(same(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "data, text",
    [
        ([], "there are no batches"),
        ([(torch.zeros(15, 2).double(), torch.zeros(15))], "a batch has 1 ghost batches of 10"),
    ],
)
def test_too_little_data(data, text):
    with pytest.raises(ValueError, match=text):
        noise_scale(Mean(2), data, value, ghost_batch_size=10)
