import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothout import schedules

STEPS = st.integers(0, 999)


def named(name, total_steps=1000):
    return schedules.resolve(name, anneal_index=0.55, tanh_scale=10.0, cosine_gain=15.0, total_steps=total_steps)


@given(STEPS)
def test_formulas(t):
    assert named("constant")(t) == 1
    assert named("anneal")(t) == pytest.approx(((1 + t) ** -0.55) ** 0.5)
    assert named("tanh")(t) == pytest.approx((1 + math.tanh(10 * (t / 1000 - 0.5))) / 2)
    assert named("cosine")(t) == pytest.approx(1 + 15 * (1 - math.cos(math.pi * t / 1000)) / 2)


def test_ends():
    assert named("anneal")(0) == 1
    assert named("tanh")(0) < 1e-4
    assert named("tanh")(500) == 0.5
    assert named("cosine")(0) == 1


@pytest.mark.parametrize("name", ["tanh", "cosine"])
def test_a_schedule_without_its_length_is_refused(name):
    with pytest.raises(ValueError, match=f"schedule='{name}' needs total_steps.*Pass total_steps="):
        named(name, total_steps=None)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'linear'; expected one of 'constant', 'anneal', 'tanh', 'cosine'"):
        named("linear")
