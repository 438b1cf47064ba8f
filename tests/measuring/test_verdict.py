"""Words from numbers: each rule at both sides of its limit."""

import dataclasses
import math

import pytest

from smoothout.intervals import mean_interval
from smoothout.measuring.verdict import helps, verdicts
from smoothout.results.diagnosis import Effect, Facts
from smoothout.results.gradient_noise import NoiseScale
from smoothout.results.scan import Scan

SCALE = NoiseScale(250.0, 10.0, 1.0, 0.004, 100, 80, 8, ())
FACTS = Facts(240, 240, 1000, 100.0, 70.0, 0.01, 1.2, SCALE, SCALE)
SCANS = (Scan("none", (), 0.01, 0.04, "why"), Scan("filter", (), math.nan, math.nan, "why not"))


def effect(kind, *differences):
    return Effect(kind, f"a change of {kind}", {}, mean_interval(differences), mean_interval(differences))


NOTHING = [effect(kind, 0.1, -0.1, 0.0) for kind in ("updates", "tuning", "tuning")]


def advice(facts=FACTS, scans=SCANS, effects=()):
    return [verdict.advice for verdict in verdicts(facts, scans, [*NOTHING, *effects], trial_updates=240)]


@pytest.mark.parametrize(
    "differences, found",
    [
        ((1.0, 1.2, 0.9), True),
        ((0.3, 0.35, 0.4), False),  # certain, but small
        ((5.0, -2.0, 0.5), False),  # large, but by chance
        ((2.0, 2.9, 0.7), True),  # t = 2.93, and one-sided 2.92 at 5 %
        ((2.0, 2.95, 0.65), False),
        ((2.0, 3.0), False),  # of two seeds t must be 6.3
        ((2.0,), False),  # one seed says nothing
        ((0.6, 0.6, 0.6), True),
    ],
)
def test_what_helps(differences, found):
    assert helps(effect("tuning", *differences)) is found


def test_too_few_updates():
    [verdict, *_] = verdicts(FACTS, SCANS, [effect("updates", 2.0, 2.5, 2.2)], trial_updates=240)
    assert verdict.advice == "too few updates: train longer or use regime adaptation"
    assert "a change of updates +2.23 points (+1.61 to +2.86), after 240 updates" in verdict.reason
    assert "the batch is 4 times the gradient noise scale" in verdict.reason
    assert "3 seeds" in verdict.doubt


def test_short_trials_say_nothing_of_the_runs_length():
    found = verdicts(
        FACTS, SCANS, [effect("updates", 2.0, 2.5, 2.2), effect("tuning", 3.0, 3.2, 3.1)], trial_updates=16
    )
    assert found[0].advice == "whether the run has too few updates was not tried: leave --epochs out"
    assert "trials of 16 updates gain from twice as many" in found[0].reason
    assert all("trials made 16 of the run's 240 updates" in verdict.doubt for verdict in found)


def test_a_batch_below_the_noise_scale_is_not_blamed():
    large = dataclasses.replace(FACTS, at_end=dataclasses.replace(SCALE, value=math.inf))
    assert "noise scale" not in verdicts(large, SCANS, [effect("updates", 2.0, 2.5, 2.2)], trial_updates=240)[0].reason


def test_tuning_first_with_the_best_step_ahead():
    better = [effect("tuning", 1.0, 1.2, 1.1), dataclasses.replace(effect("tuning", 3.0, 3.2, 3.1), name="lr x 2")]
    found = verdicts(FACTS, SCANS, [*NOTHING, *better], trial_updates=240)[0]
    assert found.advice == "tune learning rate, warm-up and weight decay first"
    assert found.reason.startswith("lr x 2 +3.10")
    assert "the best of 4 steps was picked" in found.doubt


def test_noise_is_named_with_its_range():
    assert advice(effects=[effect("noise", 1.0, 1.1, 0.9)]) == ["noise helps: try strengths 0.01 to 0.04 (scale none)"]
    assert "may help" in advice(effects=[effect("noise", 0.3, 0.2, 0.1)])[0]


def test_noise_that_does_not_help():
    assert advice(effects=[effect("noise", -0.3, 0.2, -0.1)]) == ["noise does not help in runs like this one"]
    assert advice(effects=[effect("noise", -1.1, -1.2, -1.0)]) == ["noise hurts in runs like this one"]


def test_noise_that_hurt_is_said_to_although_there_is_no_gap():
    facts = dataclasses.replace(FACTS, train_accuracy=71.0)
    assert advice(facts, effects=[effect("noise", -1.1, -1.2, -1.0)]) == ["noise hurts in runs like this one"]


def test_without_trials_a_gap_alone_does_not_speak_for_noise():
    [verdict] = verdicts(FACTS, SCANS, [], trial_updates=240)
    assert verdict.advice.startswith("noise, weight decay or more updates may close the gap: leave --no-trials out")
    assert "try strengths 0.01 to 0.04 (scale none)" in verdict.advice


def test_without_a_gap_there_is_nothing_to_close():
    facts = dataclasses.replace(FACTS, train_accuracy=71.0)
    [verdict] = verdicts(facts, SCANS, NOTHING, trial_updates=240)
    assert verdict.advice == "noise is not what this run lacks"
    assert "1.00 points apart (71.00 and 70.00 %)" in verdict.reason


def test_noise_that_helped_is_named_although_there_is_no_gap():
    facts = dataclasses.replace(FACTS, train_accuracy=71.0)
    found = advice(facts, effects=[dataclasses.replace(effect("noise", 3.0, 3.1, 2.9), scale="none")])
    assert found == ["noise helps: try strengths 0.01 to 0.04 (scale none)"]


def test_a_scale_that_hurts_is_not_named():
    scans = (SCANS[0], Scan("filter", (), 0.1, 0.4, "why"))
    plain, by_filter = effect("noise", 3.0, 3.1, 2.9), effect("noise", -3.0, -3.1, -2.9)
    tried = [dataclasses.replace(plain, scale="none"), dataclasses.replace(by_filter, scale="filter")]
    assert advice(scans=scans, effects=tried) == ["noise helps: try strengths 0.01 to 0.04 (scale none)"]


def test_nothing_tried_is_nothing_said():
    [verdict] = verdicts(FACTS, SCANS, [], trial_updates=240, displaced=True)
    assert verdict.advice == "nothing can be said without trials: leave --no-trials out"


def test_where_nothing_helps():
    nothing = (dataclasses.replace(SCANS[0], low=math.nan, high=math.nan),)
    tried = [effect("noise", 0.1, 0.2, 0.1)]
    assert advice(scans=nothing)[0].startswith("whether noise helps was not tried: find a range")
    [verdict] = verdicts(FACTS, SCANS, NOTHING, trial_updates=240, displaced=True)
    assert verdict.advice == "nothing that was tried helps: leave these settings as they are"
    assert "not tried" not in advice(effects=tried)[0]


def test_noise_of_which_every_run_failed_does_not_help():
    failed = effect("noise")
    found = verdicts(FACTS, SCANS, [*NOTHING, failed, effect("noise", -3.0, -3.1, -2.9)], trial_updates=240)[0]
    assert found.advice == "noise hurts in runs like this one"
    assert "a change of noise: every run failed" in found.reason


@pytest.mark.parametrize(
    "differences, found",
    [
        ((2.0, 2.1, 1.9), "the noise of this run hurts: train with less, or none"),
        ((-2.0, -2.1, -1.9), "the noise of this run helps: keep it"),
        ((-2.0, 2.0, 0.0), "nothing that was tried helps: leave these settings as they are"),
    ],
)
def test_the_noise_that_a_run_has(differences, found):
    [verdict] = verdicts(FACTS, SCANS, [*NOTHING, effect("clean", *differences)], trial_updates=240, displaced=True)
    assert verdict.advice == found


def test_every_verdict_has_a_reason_and_a_doubt():
    for verdict in verdicts(
        FACTS, SCANS, [effect(kind, 2.0, 2.1, 2.2) for kind in ("updates", "tuning", "noise")], trial_updates=240
    ):
        assert verdict.reason
        assert verdict.doubt
