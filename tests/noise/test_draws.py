import math

import pytest
import references
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smoothout.noise.draws import NoiseKey, normal, normal_of, uniform_integers, uniform_integers_of

CPU = torch.device("cpu")
KEY = NoiseKey(seed=7, step=3, stream=1)
MANY = 1 << 20


def uniform(key, ordinal=0, size=MANY):
    return uniform_integers(key, [ordinal], [size], CPU)[0].double() / 65536


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**40),
    stream=st.integers(0, 2**32 - 1),
    draw=st.integers(0, 2**32 - 1),
    ordinals=st.lists(st.integers(0, 2**31), min_size=1, max_size=3, unique=True),
    sizes=st.lists(st.integers(0, 20), min_size=3, max_size=3),
)
def test_equals_the_reference_element_by_element(seed, step, stream, draw, ordinals, sizes):
    sizes = sizes[: len(ordinals)]
    key = NoiseKey(seed, step, stream, draw)
    for ordinal, size, integers, floats in zip(
        ordinals,
        sizes,
        uniform_integers(key, ordinals, sizes, CPU),
        normal(key, ordinals, sizes, CPU),
        strict=True,
    ):
        names = (seed, step, stream, draw, ordinal)
        assert integers.tolist() == [references.uniform_integer(*names, index) for index in range(size)]
        assert floats.tolist() == [references.normal(*names, index) for index in range(size)]


@pytest.mark.parametrize("first", [0, 2**32 - 8, 2**32, 2**35])
def test_any_element_can_be_drawn_alone(first):
    [drawn] = uniform_integers(KEY, [5], [16], CPU, first=first)
    assert drawn.tolist() == [references.uniform_integer(7, 3, 1, 0, 5, first + i) for i in range(16)]


def test_blocks_in_any_order():
    numbers = [torch.tensor([3, 0, 2**40]), torch.tensor([], dtype=torch.int64), torch.tensor([5])]
    for draw, reference, size in (
        (uniform_integers_of, references.uniform_integer, 8),
        (normal_of, references.normal, 4),
    ):
        for ordinal, blocks, drawn in zip((5, 6, 7), numbers, draw(KEY, [5, 6, 7], numbers), strict=True):
            indices = [size * int(block) + place for block in blocks for place in range(size)]
            assert drawn.tolist() == [reference(7, 3, 1, 0, ordinal, index) for index in indices]


def test_an_offset_within_a_block_is_refused():
    with pytest.raises(ValueError, match="first is 3; expected a multiple of 8"):
        uniform_integers(KEY, [0], [8], CPU, first=3)


def test_uniform_is_odd_symmetric_and_inside_the_interval():
    k = uniform_integers(KEY, [0], [MANY], CPU)[0]
    assert bool((k % 2 != 0).all())
    assert k.min() == -65535
    assert k.max() == 65535


def test_uniform_moments_and_flatness():
    z = uniform(KEY)
    # Standard errors of mean and mean square of U(-1, 1).
    assert abs(z.mean()) < 4 * math.sqrt(1 / 3 / MANY)
    assert abs(z.square().mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / MANY)
    counts = torch.histc(z, 256, -1, 1).numpy()
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_every_bit_is_balanced():
    k = uniform_integers(KEY, [0], [MANY], CPU)[0]
    bits = (k[:, None] >> torch.arange(1, 16)) & 1
    z_scores = (bits.double().mean(0) - 0.5) / (0.5 / math.sqrt(MANY))
    assert float(z_scores.abs().max()) < 4.5


def test_normal_moments_and_distribution():
    z = normal(KEY, [0], [MANY], CPU)[0]
    assert abs(z.mean()) < 4 / math.sqrt(MANY)
    assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / MANY)
    assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / MANY)
    assert 1e-4 < stats.kstest(z[:100_000].numpy(), "norm").pvalue < 1 - 1e-4
    assert float(z.abs().max()) < 6.77


OTHERS = {
    "step": NoiseKey(7, 4, 1),
    "stream": NoiseKey(7, 3, 2),
    "draw": NoiseKey(7, 3, 1, 1),
    "seed": NoiseKey(8, 3, 1),
}


@pytest.mark.parametrize("name", [*OTHERS, "layer", "neighbour"])
def test_noises_of_different_keys_are_independent(name):
    z = uniform(KEY)
    if name == "layer":
        other = uniform(KEY, ordinal=1)
    elif name == "neighbour":
        other = z.roll(1)
    else:
        other = uniform(OTHERS[name])
    correlation = (z * other).mean() * 3
    assert abs(correlation) < 4.5 / math.sqrt(MANY)
    table = torch.histc((z * 4).floor() * 8 + (other * 4).floor(), 81, -40.5, 40.5)
    table = table[table > 0].view(8, 8).numpy()
    assert 1e-4 < stats.chi2_contingency(table).pvalue < 1 - 1e-4


def test_a_tensor_is_drawn_alike_alone_and_in_company():
    [alone] = uniform_integers(KEY, [4], [13], CPU)
    company = uniform_integers(KEY, [1, 4, 9], [5, 13, 2], CPU)
    assert torch.equal(alone, company[1])
