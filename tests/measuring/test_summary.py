import math

import pytest

from smoothout.intervals import standard_error
from smoothout.measuring.summary import compare, ranked
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


def test_the_order_tells_apart_only_what_two_standard_errors_do():
    groups = {name: compare([Number("x", value, 0.1)]) for name, value in (("a", 1.0), ("b", 1.25), ("c", 2.0))}
    assert ranked(groups) == "c > b ~ a"  # .25 is less than 2 * sqrt(2) * .1
    groups["d"] = compare([Number("x", math.nan, 0.1)])
    assert ranked(groups) == "c > b ~ a; not finite: d"
    assert ranked({"d": groups["d"]}) == "no finite value"


def test_an_order_without_errors_is_in_brackets():
    assert ranked({"a": compare([Number("x", 1.0)]), "b": compare([Number("x", 2.0)])}) == "(b > a)"
