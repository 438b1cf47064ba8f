"""Elementary functions are right to two units in the last place, and their bits those of the published order."""

import math

import mpmath
import pytest
import references
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothout.noise.elementary import exact_sqrt, log, sin_cos_turns

WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20)
ENDS = [0, 1, 2**24 - 1, 2**24 + 1, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 2**7, 2**32 - 2, 2**32 - 1]
#: Units in the last place of a float32; what two or three roundings make.
ULP = 2.0**-23


@given(WORDS)
def test_the_logarithm(words):
    x = (torch.tensor(words + ENDS).to(torch.float32) + 0.5) * 2**-32
    for value, found in zip(x, log(x).tolist(), strict=True):
        assert found == references.log(value.numpy()[()])
        exact = math.log(float(value))
        assert abs(found - exact) <= 2 * ULP * abs(exact)


@given(WORDS)
def test_sine_and_cosine(words):
    sines, cosines = sin_cos_turns(torch.tensor(words + ENDS))
    for word, sine, cosine in zip(words + ENDS, sines.tolist(), cosines.tolist(), strict=True):
        assert (sine, cosine) == (references.sin_turns(word), references.cos_turns(word))
        with mpmath.workprec(120):
            turns = 2 * (mpmath.mpf(word) + 0.5) / 2**32
            for found, exact in ((sine, mpmath.sinpi(turns)), (cosine, mpmath.cospi(turns))):
                assert abs(found / exact - 1) <= 2 * ULP


@pytest.mark.parametrize("value", [1e-30, 0.1, 1.0, math.e, 1e30])
def test_the_logarithm_of_other_numbers(value):
    x = torch.tensor([value], dtype=torch.float32)
    assert log(x).item() == pytest.approx(math.log(x.item()), rel=2 * ULP)


def test_square_roots_are_rounded_correctly():
    values = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.cat([values, values * 1e-12, values * 1e9, torch.tensor([0.0, 4.0, math.inf]).double()])
    assert exact_sqrt(values).tolist() == [math.sqrt(value) for value in values.tolist()]
    assert exact_sqrt(torch.tensor([math.nan]).double()).isnan()
