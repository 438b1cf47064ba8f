"""What the README and the card say of the demo's minima is what was measured."""

import json
import math
from pathlib import Path

import pytest

from smoothout.intervals import standard_error

RESULTS = Path(__file__).parents[1] / "experiments" / "sharpness" / "results.json"
LARGE, SMOOTH, ADAPTIVE = "large-batch", "large-batch-smoothout", "large-batch-adasmoothout"


def values(arm, measure, field="value", **options):
    rows = [
        row
        for row in json.loads(RESULTS.read_text())["rows"]
        if (row["arm"], row["measure"]) == (arm, measure) and options.items() <= row["options"].items()
    ]
    assert sorted(row["seed"] for row in rows) == [0, 1, 2, 3, 4]
    return [row[field] for row in rows]


def apart(one, other):
    """The difference of the means in standard errors."""
    error = math.hypot(standard_error(one), standard_error(other))
    return (sum(one) / len(one) - sum(other) / len(other)) / error


@pytest.mark.parametrize(("arm", "strength", "scale"), [(SMOOTH, 0.03, "none"), (ADAPTIVE, 0.3, "filter")])
def test_under_the_noise_that_the_demo_trained_with_the_large_batch_is_sharper(arm, strength, scale):
    large, noisy = (values(each, "noise", strength=strength, scale=scale) for each in (LARGE, arm))
    assert apart(large, noisy) > 2


@pytest.mark.parametrize(("strength", "scale"), [(0.005, "none"), (0.05, "filter")])
def test_under_weaker_noise_the_order_is_reversed(strength, scale):
    large, noisy = (values(each, "noise", strength=strength, scale=scale) for each in (LARGE, SMOOTH))
    assert apart(noisy, large) > 2


@pytest.mark.parametrize(
    ("measure", "field"),
    [("ball", "value"), ("ball", "per_batch"), ("adaptive", "value"), ("hessian", "value"), ("hessian", "trace")],
)
def test_by_ball_adaptive_ball_and_hessian_the_large_batch_is_flatter(measure, field):
    assert apart(values(SMOOTH, measure, field), values(LARGE, measure, field)) > 2


def test_by_the_box_they_are_not_told_apart():
    assert abs(apart(values(LARGE, "box"), values(SMOOTH, "box"))) < 2


def test_the_readme_has_the_measured_numbers():
    readme = " ".join((Path(__file__).parents[1] / "README.md").read_text().split())
    for arm in (LARGE, SMOOTH):
        found = values(arm, "noise", strength=0.03, scale="none")
        assert f"{sum(found) / 5:.3f} +- {standard_error(found):.3f}" in readme
    large, smooth = (sum(values(arm, "hessian")) / 5 for arm in (LARGE, SMOOTH))
    assert f"{large:.1f} for the large batch and {smooth:.1f} for SmoothOut" in readme
