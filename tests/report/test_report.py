"""What a report says of folders: numbers against a computation of their own, words against numbers, bad input."""

import json
import math
import re
import shutil
import statistics

import hypothesis.strategies as st
import pytest
from hypothesis import given
from made_folders import (
    ball,
    demo_like,
    hessian,
    make_comparison,
    make_line,
    make_plane,
    make_run,
    make_sharpness,
    noise,
)
from scipy.stats import t

from smoothout.report import report, words
from smoothout.report.record import ArmShown, Interval
from smoothout.results.processes import Process

ARMS = {"plain": ([70.0, 71.0, 69.5], None, {}), "noisy": ([72.0, 72.5, 72.2], "plain", {"strength": 0.03})}


def report_of(*paths, against=None):
    return report.make(paths, "smoothout report ...", against)


def sentences(group, kind):
    return [each.text for each in group.summary if each.kind == kind]


def arm_of(group, name):
    return next(arm for arm in group.arms if arm.name == name)


# -- numbers -----------------------------------------------------------------------------------------------


def test_means_differences_and_intervals_are_student_s(tmp_path):
    [group] = report_of(make_comparison(tmp_path / "c", ARMS)).groups
    gaps = [2.0, 1.5, 2.7]
    half = float(t.ppf(0.975, 2)) * statistics.stdev(gaps) / math.sqrt(3)
    found = arm_of(group, "noisy")
    assert found.difference.mean == pytest.approx(statistics.mean(gaps), rel=1e-12)
    assert found.difference.low == pytest.approx(statistics.mean(gaps) - half, rel=1e-12)
    assert found.difference.high == pytest.approx(statistics.mean(gaps) + half, rel=1e-12)
    assert found.test.mean == pytest.approx(statistics.mean(ARMS["noisy"][0]), rel=1e-12)
    assert found.test_best.mean == pytest.approx(found.test.mean + 0.25, rel=1e-12)
    assert (found.updates, found.passes, found.test.count) == (20, 5.0, 3)
    assert arm_of(group, "plain").difference is None


def test_differences_are_paired_by_seed_and_take_only_seeds_that_both_finished(tmp_path):
    arms = {"plain": ([70.0, None, 60.0], None, {}), "noisy": ([71.0, 99.0, 62.0], "plain", {"strength": 0.1})}
    [group] = report_of(make_comparison(tmp_path / "c", arms)).groups
    assert (arm_of(group, "noisy").difference.mean, arm_of(group, "noisy").difference.count) == (1.5, 2)


def test_times_are_paired_ratios(tmp_path):
    for seed, (plain, noisy) in enumerate([(2.0, 3.0), (4.0, 6.0), (1.0, 1.5)]):
        make_run(tmp_path / "plain" / str(seed), seed=seed, seconds=plain)
        make_run(tmp_path / "noisy" / str(seed), seed=seed, seconds=noisy, strength=0.1)
    folders = sorted(tmp_path.glob("*/*"))
    [group] = report_of(*folders, against="plain").groups
    found = arm_of(group, "noisy").times
    assert (found.mean, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_two_passes_of_sam_are_counted(tmp_path):
    [group] = report_of(make_run(tmp_path / "sam", method="sam", copies=3)).groups
    assert group.arms[0].passes == 5 * 2 * 3


def test_runs_that_differ_in_the_seed_alone_are_one_arm(tmp_path):
    runs = [make_run(tmp_path / "wide" / str(seed), seed=seed, accuracy=70 + seed) for seed in (0, 1)]
    runs.append(make_run(tmp_path / "other", accuracy=60.0, lr=0.5))
    [group] = report_of(*runs).groups
    assert [(arm.name, len(arm.runs)) for arm in group.arms] == [("wide", 2), ("other", 1)]
    assert [arm.settings for arm in group.arms] == [{"lr": "default"}, {"lr": "0.5"}]


def test_two_runs_of_one_seed_are_two_arms(tmp_path):
    runs = [make_run(tmp_path / name, accuracy=accuracy) for name, accuracy in (("a", 60.0), ("b", 70.0))]
    [group] = report_of(*runs).groups
    assert [(arm.name, arm.test.mean) for arm in group.arms] == [("a", 60.0), ("b", 70.0)]


def test_arms_of_one_name_in_two_comparisons_stay_apart(tmp_path):
    paths = [make_comparison(tmp_path / name, ARMS, lr=lr) for name, lr in (("a", 0.1), ("b", 0.2))]
    [group] = report_of(*paths).groups
    assert [(arm.name, arm.against) for arm in group.arms] == [
        ("a: plain", None),
        ("a: noisy", "a: plain"),
        ("b: plain", None),
        ("b: noisy", "b: plain"),
    ]


def test_models_and_data_are_shown_apart(tmp_path):
    settings = [{}, {"dataset": "digits"}, {"model": "conv1d"}, {"model_config": "{'depth': 20}"}, {"holdout": 0.2}]
    runs = [make_run(tmp_path / str(i), accuracy=50.0 + i, **each) for i, each in enumerate(settings)]
    found = report_of(*runs)
    assert [[arm.test.mean for arm in group.arms] for group in found.groups] == [[50.0], [51.0], [52.0], [53.0], [54.0]]
    assert found.groups[3].title == "mlp ('depth': 20) on mnist1d"


def test_against_replaces_what_the_comparison_says(tmp_path):
    folder = make_comparison(tmp_path / "c", ARMS)
    [group] = report_of(folder, against="noisy").groups
    assert [arm.against for arm in group.arms] == ["noisy", None]
    assert arm_of(group, "plain").difference.mean < 0
    with pytest.raises(ValueError, match=r"against is 'nosy'; expected one of noisy, plain\."):
        report_of(folder, against="nosy")


# -- sharpness ---------------------------------------------------------------------------------------------


def sharp(tmp_path, measured, seeds=(0, 1, 2)):
    """The measures of a comparison, and its arms by name."""
    folder = make_comparison(tmp_path / "c", ARMS)
    runs = {name: [folder / name / str(seed) for seed in seeds] for name in ARMS}
    make_sharpness(folder / "sharpness", measured(runs))
    [group] = report_of(folder).groups
    return group


def test_over_seeds_the_interval_is_welch_s(tmp_path):
    values = {"plain": (0.30, 0.33, 0.36), "noisy": (0.10, 0.11, 0.12)}
    group = sharp(
        tmp_path, lambda runs: [noise(runs[n][seed], 0.03, values[n][seed]) for n in values for seed in range(3)]
    )
    [measure] = group.measures
    [verdict] = measure.verdicts
    variances = {name: statistics.variance(each) / 3 for name, each in values.items()}
    both = sum(variances.values())
    freedom = both**2 / sum(each**2 / 2 for each in variances.values())
    half = float(t.ppf(0.975, freedom)) * math.sqrt(both)
    gap = statistics.mean(values["noisy"]) - statistics.mean(values["plain"])
    assert (verdict.low, verdict.high) == pytest.approx((gap - half, gap + half), rel=1e-9)
    assert (verdict.sharper, verdict.words) == (False, "flatter")
    value = measure.values[0]
    assert value.high == pytest.approx(0.33 + float(t.ppf(0.975, 2)) * math.sqrt(variances["plain"]), rel=1e-9)
    assert value.seeds == (0, 1, 2)


def test_a_curve_rises_in_its_strengths_however_its_points_were_kept(tmp_path):
    kept = (0.01, 0.003, 0.05, 0.02)
    group = sharp(
        tmp_path, lambda runs: [hessian(runs["plain"][0], 1.0), *(noise(runs["plain"][0], a, a) for a in kept)]
    )
    assert [measure.strength for measure in group.measures] == [0.003, 0.01, 0.02, 0.05, None, None]


def test_one_seed_speaks_of_its_minima_alone(tmp_path):
    group = sharp(tmp_path, lambda runs: [noise(runs["plain"][0], 0.03, 0.3), noise(runs["noisy"][0], 0.03, 0.1)])
    [text] = sentences(group, "sharpness")
    assert text == (
        "noisy against plain (seed 0 alone; trained with strength 0.03): on average flatter under noise of "
        "strength 0.03."
    )
    [details] = [each.details for each in group.summary if each.kind == "sharpness"]
    assert details == (
        "on average: noise, uniform, scale none, train samples: flatter at strength 0.03 (-0.2, 95 % -0.203 to -0.197)",
    )


def test_kinds_of_measure_are_told_apart_and_nothing_is_said_without_an_error(tmp_path):
    def measured(runs):
        plain, noisy = runs["plain"][0], runs["noisy"][0]
        found = [noise(plain, 0.01, 0.01), noise(noisy, 0.01, 0.05), noise(plain, 0.03, 0.3), noise(noisy, 0.03, 0.1)]
        return [*found, ball(plain, 0.01), ball(noisy, 0.0101, error=0.1), hessian(plain, 3.0), hessian(noisy, 30.0)]

    group = sharp(tmp_path, measured)
    [text] = sentences(group, "sharpness")
    assert text.endswith(
        ": on average flatter under noise of strength 0.03, sharper under noise of strength 0.01 and by the trace of "
        "the Hessian; in the worst case not told apart by the ball of radius 0.05 per batch of 128, higher, but "
        "without an interval, by the ball of radius 0.05; by curvature higher, but without an interval, by the "
        "largest eigenvalue of the Hessian."
    )
    assert {measure.name: measure.kind for measure in group.measures} == {
        "noise a = 0.01, none: rise (nats)": "average",
        "noise a = 0.03, none: rise (nats)": "average",
        "ball rho = 0.05: rise": "worst",
        "ball rho = 0.05: rise per batch of 128": "worst",
        "hessian: largest eigenvalue": "curvature",
        "hessian: trace": "average",
    }


def test_measures_of_weights_that_have_changed_or_are_strange_are_left_out(tmp_path):
    folder = make_comparison(tmp_path / "c", ARMS)
    strange = make_run(tmp_path / "strange")
    make_sharpness(folder / "sharpness", [noise(folder / "plain" / "0", 0.03, 0.3), noise(strange, 0.03, 0.3)])
    make_plane(folder / "plane", folder / "plain" / "0")
    make_plane(folder / "other", strange)
    shutil.rmtree(folder / "plain" / "0")
    make_run(folder / "plain" / "0", accuracy=12.0)
    found = report_of(folder)
    assert found.groups[0].measures == ()
    assert found.groups[0].planes == ()
    again = f"{folder / 'plain' / '0'} was trained again since it was measured"
    foreign = f"{strange} is of no run that the report is about"
    assert set(found.left_out) == {
        f"A measure is left out: {again}.",
        f"A measure is left out: {foreign}.",
        f"{folder / 'plane'} is left out: {again}.",
        f"{folder / 'other'} is left out: {foreign}.",
    }


def test_measures_follow_runs_that_were_moved(tmp_path):
    folder = make_comparison(tmp_path / "c", ARMS)
    make_sharpness(folder / "sharpness", [noise(folder / "plain" / "0", 0.03, 0.3)])
    moved = folder.rename(tmp_path / "moved")
    [group] = report_of(moved).groups
    assert [value.arm for value in group.measures[0].values] == ["plain"]


def test_runs_of_equal_weights_keep_their_own_measures(tmp_path):
    folder = make_comparison(tmp_path / "c", ARMS)
    runs = [folder / arm / "0" for arm in ARMS]
    shutil.copy(*(run / "checkpoints" / "best" / "model.safetensors" for run in runs))
    make_sharpness(folder / "sharpness", [noise(runs[0], 0.03, 0.3), noise(runs[1], 0.03, 0.1)])
    [group] = report_of(folder).groups
    assert [(value.arm, value.value) for value in group.measures[0].values] == [("plain", 0.3), ("noisy", 0.1)]


def test_landscapes_keep_what_is_not_finite_apart(tmp_path):
    folder = make_comparison(tmp_path / "c", ARMS)
    make_plane(folder / "plane", folder / "noisy" / "0", wild=True)
    make_line(folder / "line", folder / "plain" / "0", folder / "noisy" / "0")
    [group] = report_of(folder).groups
    [plane], [line] = group.planes, group.lines
    assert plane.title == "noisy, seed 0"
    assert plane.losses[0][0] is None
    assert plane.losses[2][2] == pytest.approx(0.01)
    assert (plane.xs[0], plane.ys[0]) == (-3.0, -2.0)  # in weight space
    assert line.title == "plain, seed 0 to noisy, seed 0"
    assert line.losses[-1] is None


# -- words -------------------------------------------------------------------------------------------------


@given(gaps=st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_words_follow_the_interval(gaps):
    """Gains, loses or nothing certain, as the interval says, whatever the numbers."""
    from smoothout.intervals import mean_interval
    from smoothout.report.arms import interval

    found = mean_interval(gaps)
    arm = ArmShown(
        "noisy",
        "plain",
        {},
        "",
        (),
        *[Interval(None, None, None, 0)] * 4,
        interval(found),
        *[None] * 3,
        Interval(None, None, None, 0),
        None,
    )
    [text] = words._differences([arm])
    certain = len(gaps) >= 3 and (found.low > 0 or found.high < 0)
    assert (" gains " in text) == (certain and found.mean > 0)
    assert (" loses " in text) == (certain and found.mean < 0)
    assert ("no difference in test accuracy is certain" in text) == (len(gaps) > 1 and not certain)
    assert ("one seed says nothing of chance" in text) == (len(gaps) == 1)
    assert len(gaps) == 1 or re.search(rf"95 % interval .* to .*, {len(gaps)} seeds", text)


def test_who_is_ahead_and_how_certainly(tmp_path):
    [group] = report_of(make_comparison(tmp_path / "c", ARMS)).groups
    assert sentences(group, "accuracy") == [
        "noisy has the highest test accuracy after the last epoch: 72.23 % (71.61 to 72.86, 3 seeds). Next is plain "
        "with 70.17 % (68.27 to 72.06, 3 seeds); the lead is +2.07 points (95 % interval +0.57 to +3.56, 3 seeds), "
        "certain.",
        "noisy gains 2.07 points (95 % interval 0.57 to 3.56, 3 seeds) of test accuracy over plain: certain.",
    ]


def test_three_arms_are_told_that_the_highest_was_picked(tmp_path):
    arms = ARMS | {"third": ([72.0, 72.4, 72.3], "plain", {"strength": 0.01})}
    [group] = report_of(make_comparison(tmp_path / "c", arms)).groups
    assert (
        "not certain (the highest of 3 was picked after the fact, which this does not allow for)"
        in sentences(group, "accuracy")[0]
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ([(2.0, 3.0), (4.0, 6.1), (1.0, 1.5)], "1.51 times the time (95 % interval 1.47 to 1.54, 3 seeds), certain."),
        ([(2.0, 3.0), (4.0, 3.0), (1.0, 1.5)], "not certain."),
        ([(2.0, 3.0)], "1.50 times the time at one seed."),
    ],
)
def test_costs_are_told_against_the_other_arm(tmp_path, seconds, words):
    for seed, (plain, noisy) in enumerate(seconds):
        make_run(tmp_path / "plain" / str(seed), seed=seed, seconds=plain)
        make_run(tmp_path / "noisy" / str(seed), seed=seed, seconds=noisy, strength=0.1, copies=2)
    [group] = report_of(*sorted(tmp_path.glob("*/*")), against="plain").groups
    text = sentences(group, "cost")[0]
    assert text.startswith("noisy against plain: 2 times the passes over the training samples, as many updates, ")
    assert text.endswith(words)
    assert sentences(group, "cost")[1].startswith("plain: 5 passes over the training samples, 20 updates, ")


def test_without_a_finished_run_nothing_is_claimed(tmp_path):
    [group] = report_of(make_run(tmp_path / "a", done=2)).groups
    assert sentences(group, "accuracy") == ["No run is finished, so nothing can be said yet about accuracy."]
    assert sentences(group, "cost") == []
    assert sentences(group, "warning") == [
        "a: 0 of 1 run finished (seed 0 unfinished, after epoch 2 of 5; how its process fared is not known). Its "
        "numbers are of those alone."
    ]


# -- states and bad input ----------------------------------------------------------------------------------


def process(**changes):
    values = {
        "command": "smoothout train --name a",
        "commit": "abc",
        "machine": {"processor": "x"},
        "versions": {"torch": "2"},
        "host": "0" * 16,
        "pid": 1,
        "pid_started": 0.0,
        "started": "2026-01-01T00:00:00Z",
        "ended": None,
        "outcome": "running",
        "error": None,
    }
    return json.dumps(values | changes)


@pytest.mark.parametrize(
    ("changes", "state", "note"),
    [
        ({"outcome": "failed", "error": "ValueError: no"}, "failed", "failed after epoch 2 of 5: ValueError: no"),
        ({"outcome": "interrupted"}, "interrupted", "was interrupted after epoch 2 of 5; --resume goes on with it"),
    ],
)  # fmt: skip
def test_a_run_that_ended_early_says_how(tmp_path, changes, state, note):
    run = make_run(tmp_path / "a", done=2)
    (run / "process.json").write_text(process(**changes))
    [group] = report_of(run).groups
    [shown] = group.arms[0].runs
    assert (shown.state, shown.note, shown.epochs, shown.planned) == (state, note, 2, 5)
    assert group.origins[0].command == "smoothout train --name a"


def test_living_and_vanished_processes_are_told_apart(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a", done=2)
    (run / "process.json").write_text(process())
    for lives, state in ((True, "running"), (False, "vanished")):
        monkeypatch.setattr(Process, "lives", lives)
        monkeypatch.setattr("smoothout.results.processes._is_written", lambda folder: False)
        [group] = report_of(run).groups
        assert group.arms[0].runs[0].state == state
    assert "vanished" not in sentences(group, "warning")[0]
    assert "its process is gone without a word, after epoch 2 of 5" in sentences(group, "warning")[0]


def test_half_written_files_are_named_and_the_rest_is_shown(tmp_path):
    folder = make_comparison(tmp_path / "c", ARMS)
    (folder / "plain" / "0" / "result.json").write_text('{"seed": ')
    (folder / "plain" / "1" / "config.json").write_text("{")
    (folder / "noisy" / "2" / "metrics.csv").write_text("epoch,train_loss\n1,")
    (folder / "sharpness").mkdir()
    (folder / "sharpness" / "sharpness.json").write_text("[1")
    found = report_of(folder)
    [group] = found.groups
    assert [run.state for run in arm_of(group, "plain").runs] == ["unknown", "finished"]
    assert arm_of(group, "plain").test.count == 1
    named = " ".join(found.left_out)
    for part in ("plain/0/result.json cannot be read", "plain/1 is left out", "noisy/2/metrics.csv", "sharpness.json"):
        assert part in named


def test_runs_that_have_not_begun_are_waited_for(tmp_path):
    arms = ARMS | {"late": ([None, None, None], "plain", {"strength": 0.2})}
    [group] = report_of(make_comparison(tmp_path / "c", arms)).groups
    assert [run.state for run in arm_of(group, "late").runs] == ["waiting"] * 3
    assert any(
        text.startswith("late: 0 of 3 runs finished (seed 0 has not begun;") for text in sentences(group, "warning")
    )


def test_what_is_no_run_is_refused_with_words(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"empty holds no run, comparison, sharpness or landscape; expected a folder"
    ):
        report_of(tmp_path / "empty")
    run = make_run(tmp_path / "a")
    with pytest.raises(ValueError, match=r"a is named twice; expected each folder once\."):
        report_of(run, tmp_path / "b" / ".." / "a")
    make_plane(tmp_path / "plane", run)
    with pytest.raises(
        ValueError, match=r"no run is among .*plane; expected folders that smoothout train or compare wrote"
    ):
        report_of(tmp_path / "plane")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"no run is among .*half is left out: its settings cannot be read"):
        report_of(tmp_path / "half")


def test_a_run_with_measures_of_its_own_shows_them(tmp_path):
    run = make_run(tmp_path / "a")
    make_sharpness(run / "sharpness", [noise(run, 0.03, 0.3)])
    make_plane(tmp_path / "elsewhere", run)
    [group] = report_of(run, tmp_path / "elsewhere").groups
    assert len(group.measures) == 1
    assert len(group.planes) == 1


def test_the_demo_s_shape_gives_everything(tmp_path):
    [group] = report_of(demo_like(tmp_path / "demo")).groups
    assert len(group.arms) == 4
    assert len(group.planes) == 4
    assert {each.kind for each in group.summary} == {"accuracy", "sharpness", "cost"}
