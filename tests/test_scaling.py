"""The size of the noise, against the slow reference, for every kind of tensor."""

import math

import pytest
import references
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smoothout.noise.draws import NoiseKey
from smoothout.scaling import blocked_sum, offsets
from smoothout.weights import all_weights

KEY = (11, 2, 3, 1)
# Each has a parameter of another kind; transposed convolutions name their groups.
CASES = {
    "linear": (nn.Linear(5, 3), None),
    "linear of one input": (nn.Linear(1, 4), None),
    "wide linear": (nn.Linear(600, 2, bias=False), None),
    "conv": (nn.Conv2d(3, 4, 3), None),
    "grouped conv": (nn.Conv1d(4, 6, 2, groups=2), None),
    "channels_last conv": (nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), None),
    "transposed conv": (nn.ConvTranspose2d(3, 2, 2), 1),
    "grouped transposed conv": (nn.ConvTranspose1d(4, 6, 3, groups=2), 2),
    "embedding": (nn.Embedding(4, 5), None),
    "layer norm": (nn.LayerNorm(6), None),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), None),
    "double": (nn.Linear(7, 3).double(), None),
    "bfloat16": (nn.Linear(7, 3).bfloat16(), None),
    "float16": (nn.Linear(7, 3).half(), None),
}


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.7))


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
@pytest.mark.parametrize("case", [*CASES, "0-D"])
def test_equals_the_reference(case, scale, distribution):
    module, groups = CASES.get(case, (Scalar(), None))
    weights = all_weights(module)
    found = offsets(weights, NoiseKey(*KEY), 0.3, scale, distribution)
    for weight, theta in zip(weights, found, strict=True):
        transposed = groups if weight.parameter.dim() > 2 else None
        expected = references.offset(weight.parameter, weight.ordinal, 0.3, scale, distribution, KEY, transposed)
        assert theta.dtype == expected.dtype
        assert theta.shape == weight.parameter.shape
        assert torch.equal(theta, expected)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("case", ["linear", "conv", "grouped conv", "transposed conv", "grouped transposed conv"])
def test_filter_noise_has_the_strength_times_the_filters_norm(case, distribution):
    module, _ = CASES[case]
    [weight, *_] = all_weights(module)
    [theta] = offsets([weight], NoiseKey(*KEY), 0.3, "filter", distribution)
    noise, norm = (weight.filters(values).norm(dim=1) for values in (theta, weight.parameter.detach()))
    assert len(noise) == {"linear": 3, "conv": 4, "grouped conv": 6, "transposed conv": 2}.get(case, 6)
    torch.testing.assert_close(noise, 0.3 * norm, rtol=2e-5, atol=0)


def test_a_filter_of_a_transposed_convolution_makes_one_output_channel():
    layer = nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False)
    [weight] = all_weights(layer)
    rows = weight.filters(weight.parameter.detach()).clone()
    with torch.no_grad():
        layer.weight.mul_(weight.over_filters(torch.tensor([0.0, 1, 1, 1, 0, 1])))
    out = layer(torch.randn(1, 4, 5))
    assert rows.shape == (6, 6)
    assert [bool(channel.any()) for channel in out[0]] == [False, True, True, True, False, True]


def test_one_element_filters_get_plus_or_minus_the_strength_times_the_weight():
    bias = nn.LayerNorm(2000)
    nn.init.normal_(bias.weight)
    [weight, _] = all_weights(bias)
    [theta] = offsets([weight], NoiseKey(*KEY), 0.3, "filter", "uniform")
    ratio = theta / (0.3 * bias.weight.detach())
    assert float(ratio.abs().max()) <= 1
    assert float(ratio.abs().median()) > 0.9999
    assert 900 < int((ratio > 0).sum()) < 1100


@pytest.mark.parametrize("scale", ["filter", "weight"])
def test_weights_of_zero_norm_get_no_noise(scale):
    lora_b = nn.Linear(4, 8, bias=False)
    nn.init.zeros_(lora_b.weight)
    [theta] = offsets(all_weights(lora_b), NoiseKey(*KEY), 0.3, scale, "uniform")
    assert not theta.any()


def test_an_empty_parameter_is_no_trouble():
    module = nn.ParameterDict({"none": nn.Parameter(torch.zeros(0, 3)), "some": nn.Parameter(torch.ones(2, 0))})
    for scale in ("none", "weight", "filter"):
        thetas = offsets(all_weights(module), NoiseKey(*KEY), 0.3, scale, "uniform")
        assert [theta.numel() for theta in thetas] == [0, 0]


@given(st.integers(1, 1500), st.integers(0, 2**32))
def test_the_order_of_sums_is_the_published_one(length, seed):
    row = torch.randn(length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).square()
    total = blocked_sum(row[None])[0].item()
    assert total == references.lane_sum(row.tolist())
    assert total == pytest.approx(math.fsum(row.tolist()), rel=1e-14)


def test_uniform_noise_of_matched_variance():
    # r of plain uniform noise: a sqrt(d / 3) / ||w||.
    layer = nn.Linear(400, 50, bias=False)
    [theta] = offsets(all_weights(layer), NoiseKey(*KEY), 0.05, "none", "uniform")
    expected = 0.05 * math.sqrt(400 * 50 / 3)
    assert float(theta.norm()) == pytest.approx(expected, rel=4 * math.sqrt(4 / 5 / 400 / 50) / 2)
