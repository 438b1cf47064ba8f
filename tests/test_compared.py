import math

import pytest

from smoothout.intervals import standard_error
from smoothout.results.compared import above, compare, difference, ranked
from smoothout.results.sharpness import Number


def test_a_single_checkpoint_keeps_the_measures_own_error():
    assert compare([Number("x", 2.0, 0.1)]).error == 0.1
    assert math.isnan(compare([Number("x", 2.0)]).error)


def test_of_several_runs_the_error_is_that_of_their_mean():
    together = compare([Number("x", value, 0.001) for value in (1.0, 2.0, 6.0)])
    assert together.value == 3.0
    assert together.error == pytest.approx(standard_error([1.0, 2.0, 6.0]))


def test_a_doubt_of_one_run_marks_the_group():
    together = compare([Number("x", 1.0), Number("x", 2.0, doubts=("why",))])
    assert together.doubts == ("why",)
    assert str(together).endswith("(!)")


def test_every_pair_that_the_errors_do_not_tell_apart_is_named():
    # Neighbours that are not told apart may be the ends of a row that is.
    groups = {name: compare([Number("x", value, 0.1)]) for name, value in (("a", 1.0), ("b", 1.25), ("c", 1.5))}
    assert ranked(groups) == ["c, b, a", "not told apart: c and b, b and a"]
    groups["d"] = compare([Number("x", math.nan, 0.1)])
    assert ranked(groups)[-1] == "not finite: d"
    assert ranked({"d": groups["d"]}) == ["no finite value", "not finite: d"]


def test_equal_values_are_not_told_apart():
    same = compare([Number("x", 1.0, 0.1)])
    assert ranked({"a": same, "b": same})[1] == "not told apart: a and b"


def test_an_order_without_errors_says_so():
    groups = {"a": compare([Number("x", 1.0)]), "b": compare([Number("x", 2.0, residual=1e-6)])}
    assert ranked(groups)[1].startswith("no error is known")
    assert str(groups["b"]) == "2 (residual 1e-06)"


def test_two_runs_need_a_larger_difference_than_two_standard_errors():
    # Of two runs each, Student's t has two degrees of freedom: 4.30 standard errors.
    one, other = compare([Number("x", 0.9), Number("x", 1.1)]), compare([Number("x", 1.3), Number("x", 1.5)])
    error = math.hypot(one.error, other.error)
    assert 2 * error < other.value - one.value < 4.3 * error
    assert above(other, one) is False
    assert above(compare([Number("x", 1.7), Number("x", 1.9)]), one) is True
    assert above(one, compare([Number("x", 1.0)])) is None


def test_a_difference_has_welchs_interval():
    from scipy.stats import ttest_ind

    values = [1.0, 2.0, 4.0], [3.0, 3.5, 5.0, 9.0]
    one, other = (compare([Number("x", value) for value in each]) for each in values)
    found, interval = difference(one, other), ttest_ind(*values, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(one.value - other.value)


def test_a_difference_of_what_has_no_error():
    exact, unknown = compare([Number("x", 1.0, 0.0)]), compare([Number("x", 2.0)])
    assert math.isnan(difference(unknown, exact).low)
    assert difference(exact, exact).high == 0.0
    assert above(exact, exact) is False
