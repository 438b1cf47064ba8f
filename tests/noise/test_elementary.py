"""Elementary functions are those of mathematics to eleven digits, and their bits those of the published order."""

import math

import mpmath
import pytest
import references
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothout.noise.elementary import exact_sqrt, log, sin_cos_turns

WORDS = st.integers(0, 2**32 - 1)
ENDS = [0, 1, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]


def of(word):
    """As the draws make a number in (0, 1) of 32 bits."""
    return (word + 0.5) / 2**32


def close(found, exact):
    assert abs(found / exact - 1) < 2e-11


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_the_logarithm(words):
    found = log(torch.tensor([of(word) for word in words + ENDS], dtype=torch.float64)).tolist()
    for word, value in zip(words + ENDS, found, strict=True):
        assert value == references.log(of(word))
        with mpmath.workprec(120):
            close(value, mpmath.log(mpmath.mpf(of(word))))


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_sine_and_cosine(words):
    sines, cosines = sin_cos_turns(torch.tensor([of(word) for word in words + ENDS], dtype=torch.float64))
    for word, sine, cosine in zip(words + ENDS, sines.tolist(), cosines.tolist(), strict=True):
        assert (sine, cosine) == (references.sin_turns(of(word)), references.cos_turns(of(word)))
        with mpmath.workprec(120):
            close(sine, mpmath.sinpi(2 * mpmath.mpf(of(word))))
            close(cosine, mpmath.cospi(2 * mpmath.mpf(of(word))))


@pytest.mark.parametrize("value", [1e-300, 0.1, 1.0, math.e, 1e300])
def test_the_logarithm_of_other_numbers(value):
    [found] = log(torch.tensor([value], dtype=torch.float64)).tolist()
    assert found == pytest.approx(math.log(value), rel=2e-12)


def test_square_roots_are_rounded_correctly():
    values = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.cat([values, values * 1e-12, values * 1e9, torch.tensor([0.0, 4.0, math.inf]).double()])
    assert exact_sqrt(values).tolist() == [math.sqrt(value) for value in values.tolist()]
    assert exact_sqrt(torch.tensor([math.nan]).double()).isnan()
