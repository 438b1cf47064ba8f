import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothout.landscape import alphas, evenly, sinusoidal
from smoothout.landscape.grid import rising


@pytest.mark.parametrize(
    ("text", "count", "last"), [("-1:0.1:2.01", 31, 2.0), ("-1:0.04:1.01", 51, 1.0), ("-0.3:0.02:0.31", 31, 0.3)]
)
def test_the_ranges_on_record(text, count, last):
    found = alphas(text)
    assert (len(found), found[-1]) == (count, last)
    assert found.count(0.0) == 1
    assert math.copysign(1, found[found.index(0.0)]) == 1


def test_the_stop_is_left_out():
    assert alphas("0:0.1:0.3") == (0.0, 0.1, 0.2)
    assert alphas("0:0.1:0.301") == (0.0, 0.1, 0.2, 0.3)
    assert alphas("0:1:0.5") == (0.0,)


@given(below=st.integers(0, 60), above=st.integers(1, 60), step=st.decimals("0.001", "2", places=3))
def test_a_range_that_holds_zero_has_it(below, above, step):
    start, stop = -below * step, above * step
    found = alphas(f"{start}:{step}:{stop}")
    assert found == tuple(float(Decimal(start) + index * Decimal(step)) for index in range(below + above))
    assert found[below] == 0
    assert found == rising("alphas", found)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("-1:0:1", "'-1:0:1', whose step of 0 never arrives; expected START:STEP:STOP with STEP > 0"),
        ("-1:-0.1:1", "whose step has the wrong sign for its ends.*Swap the ends, or turn the sign"),
        ("1:0.1:-1", "whose step has the wrong sign"),
        ("1:-0.1:-1", "which falls.*Write it as it rises, from -1 to 1"),
        ("1:0.1:1", "which is empty, as the stop is left out.*Put the stop behind the last number"),
        ("a:0.1:1", "in which 'a' is not a number.*Write digits with a point"),
        ("0:nan:1", "in which 'nan' is not a number"),
        ("0:0.1:inf", "in which 'inf' is not a number"),
        ("0:0,1:1", "in which '0,1' is not a number"),
        ("0:1", "which has 2 parts.*Put colons between three numbers"),
        ("0:1e-9:1", "which are 1,000,000,000 points.*1,000,000 points at most"),
    ],
)
def test_ranges_that_are_none(text, match):
    with pytest.raises(ValueError, match=match):
        alphas(text)


@given(half=st.integers(1, 50), high=st.floats(1e-3, 1e3))
def test_an_axis_around_zero_has_it_and_is_symmetric(half, high):
    found = evenly(2 * half + 1, -high, high)
    assert (found[0], found[half], found[-1]) == (-high, 0.0, high)
    assert [-value for value in reversed(found)] == list(found)


def test_axes_that_are_none():
    with pytest.raises(ValueError, match="from -1 to 1 has 20 points, none of them 0, the model itself.*Take 21"):
        evenly(20)
    with pytest.raises(ValueError, match="goes from 1.0 to -1.0; expected finite numbers that rise. Swap them"):
        evenly(3, 1.0, -1.0)
    with pytest.raises(ValueError, match="number of points of an axis is 1; expected a whole number >= 2"):
        evenly(1)
    assert len(evenly(4, 0.0, 1.0)) == 4


def test_the_sine_ends_at_both_ends_and_rises():
    found = sinusoidal(alphas("0:0.05:1.01"))
    assert (found[0], found[10], found[-1]) == (0.0, pytest.approx(0.5, abs=1e-15), 1.0)
    assert found == rising("alphas", found)
    assert sinusoidal([0.3]) == (pytest.approx((1 + math.sin(math.pi * 0.3 - math.pi / 2)) / 2),)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_beyond_its_ends_the_sine_would_turn_back(alpha):
    with pytest.raises(ValueError, match=r"alpha is .* in mode 'sin'; expected numbers in \[0, 1\].*turns back"):
        sinusoidal([0.0, alpha])


@pytest.mark.parametrize("values", [[0.0, 1.0, 0.5], [0.0, 0.0], [0.0, math.inf], [math.nan]])
def test_a_grid_that_goes_to_and_fro(values):
    with pytest.raises(ValueError, match="xs has .* after .*; expected finite numbers, each above the one before"):
        rising("xs", values)


def test_an_empty_grid():
    with pytest.raises(ValueError, match="xs is empty; expected at least one number"):
        rising("xs", [])
