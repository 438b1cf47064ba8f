"""The page of evidence says what the results say, and the experiments' arithmetic is right."""

import argparse
import importlib.util
import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from smoothout import SmoothOut

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"


@pytest.fixture
def experiment(monkeypatch):
    """Imports a script of experiments/ by name."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_page_is_what_the_results_make_of_it(experiment, monkeypatch, tmp_path):
    page = experiment("page")
    written = page.PAGE.read_text()
    claims = {path.name: path.read_text() for path in page.claim_pages.FOLDER.glob("*.md")}
    readme = page.readme.PATH.read_text()
    monkeypatch.setattr(page, "PAGE", tmp_path / "evidence.md")
    monkeypatch.setattr(page.claim_pages, "FOLDER", tmp_path / "claims")
    monkeypatch.setattr(page.drawing, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(page.readme, "PATH", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(readme)
    page.main()
    assert (tmp_path / "evidence.md").read_text() == written
    assert len(claims) == 8
    assert {path.name: path.read_text() for path in (tmp_path / "claims").glob("*.md")} == claims
    assert (tmp_path / "README.md").read_text() == readme


def run_of(seed, accuracy):
    return {"seed": seed, "test_accuracy_last": accuracy}


def test_differences_are_paired_by_seed(experiment):
    page = experiment("page")
    record = {
        "arms": [
            {"arm": "a", "runs": [run_of(0, 71.0), run_of(1, 80.0), run_of(2, 90.0)]},
            {"arm": "b", "runs": [run_of(1, 79.0), run_of(0, 70.0)]},
        ]
    }
    found = page.difference(record, "a", "b")
    assert (found.mean, found.count) == (1.0, 2)


def test_the_tuned_fixed_strength_is_chosen_on_the_hold_out(experiment):
    page = experiment("page")

    def arm(name, scores, accuracy):
        trials = [{"score": score, "pruned": pruned} for score, pruned in scores]
        return {"arm": name, "trials": trials, "runs": [run_of(0, accuracy)]}

    record = {
        "arms": [arm("SmoothOut", [(70.0, False), (99.0, True)], 60.0), arm("AdaSmoothOut", [(69.0, False)], 80.0)]
    }
    assert page.tuned_fixed(record) == "SmoothOut"


@pytest.mark.parametrize(
    "differences, holds", [((0.0, 0.1, -0.1), True), ((-0.4, -0.4, -0.4), False), ((2.0, -2.0, 0.0), False)]
)
def test_the_rule_for_auto(differences, holds, experiment, monkeypatch):
    page = experiment("page")
    found = page.mean_interval(differences)
    monkeypatch.setattr(page, "difference", lambda *_: found)
    monkeypatch.setattr(page, "tuned_fixed", lambda _: "SmoothOut")
    [text, _] = page.rule({"pair": {}})
    assert ("it holds on every pair" in text) is holds
    assert ("stays experimental" in text) is not holds


def test_an_experiment_ends_when_its_minutes_are_over(experiment, monkeypatch):
    command = experiment("command")
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(sys, "argv", ["experiment", "--minutes", "0.001"])
    try:
        assert command.parse(argparse.ArgumentParser()).jobs == 2
        with pytest.raises(SystemExit, match="0.001 minutes are over; what is finished is kept"):
            time.sleep(10)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_every_arm_of_a_pair_is_searched_over_the_same_and_its_knob(experiment):
    pairs = experiment("pairs")
    for pair in pairs.PAIRS.values():
        for arm in pairs.arms_of(pair):
            assert arm.space.names[:3] == pairs.TUNED
            assert len(arm.space.names) <= 4
            assert all(name in arm.space.names for name in arm.space.given)
            for name in arm.space.names:
                arm.space.range(name, arm.settings)  # raises for a knob that the method lacks
    arms = {arm.name: arm.settings for arm in pairs.arms_of(pairs.PAIRS["mnist1d-mlp"])}
    assert 2 * arms["SAM, equal passes"].schedule.epochs == arms["large batch"].schedule.epochs
    assert not any(set(pair.tuning_seeds) & set(pair.seeds) for pair in pairs.PAIRS.values())


def test_goals_are_counted_over_the_pairs_that_have_the_arms(experiment):
    page = experiment("page")

    def arm(name, accuracies):
        runs = [run_of(seed, accuracy) for seed, accuracy in enumerate(accuracies)]
        return {"arm": name, "trials": [{"score": 1.0, "pruned": False}], "runs": runs}

    better = {
        "arms": [arm("large batch", [70, 71, 72]), arm("SmoothOut", [71, 72, 73.1]), arm("AdaSmoothOut", [0] * 3)]
    }
    worse = {
        "arms": [
            arm("large batch", [70, 71, 72]),
            arm("SmoothOut", [69, 70, 71]),
            arm("AdaSmoothOut", [0] * 3),
            arm("EMA", [60, 60, 60]),
        ]
    }
    rows = page.goals({"one": better, "two": worse})
    assert [row.split(" | ")[1] for row in rows[2:-1]] == [
        "1 of 2 pairs |",
        "1 of 2 pairs |",
        "1 of 2 pairs |",
        "1 of 1 pairs |",
        "0 of 0 pairs |",
    ]


def test_an_extension_is_chosen_on_the_hold_out_and_judged_on_the_test_set(experiment):
    extensions = experiment("extensions")
    weak, strong = (extensions.Variant(name, {}) for name in ("weak", "strong"))

    def runs(holdout, test):
        return [
            {"seed": seed, "holdout_accuracy_last": holdout, "test_accuracy_last": test + 0.01 * seed}
            for seed in extensions.SEEDS
        ]

    found = {"weak": runs(80.0, 60.0), "strong": runs(70.0, 90.0)}
    assert extensions.chosen((strong, weak), found, "last") is weak
    assert extensions.difference(found["weak"], found["strong"]).high < 0
    assert not extensions.difference(found["weak"], found["weak"]).certain


@pytest.mark.parametrize(
    "mean, found",
    [(0.1, "no difference seen"), (0.352, "helps, probable"), (0.355, "helps, certain"), (-0.6, "harms, certain")],
)
def test_a_verdict_counts_how_many_were_compared(mean, found, experiment):
    tables = experiment("tables")
    # Student's t with 7 degrees of freedom: 2.3646 at 5 %, 4.1743 at 5 % over twelve, so that 0.2 becomes 0.3531.
    assert tables.verdict(tables.Estimate(mean, 0.2, 8), 12) == found


def test_antithetic_copies_are_mirrored(experiment):
    variants = experiment("variants")
    model = torch.nn.Linear(3, 2).double()
    clean = model.weight.detach().clone()
    smoother = SmoothOut(model, 0.1)
    smoother.__class__ = variants._Antithetic
    moved = []
    for draw in range(4):
        with smoother.perturbed(stream=0, draw=draw):
            moved.append(model.weight.detach() - clean)
    torch.testing.assert_close(moved[0], -moved[1])
    torch.testing.assert_close(moved[2], -moved[3])
    assert not torch.allclose(moved[0], moved[2])


def test_only_the_first_ghost_batch_is_counted(experiment):
    variants = experiment("variants")
    norm = torch.nn.BatchNorm1d(2)
    smoother = SmoothOut(torch.nn.Sequential(torch.nn.Linear(2, 2), norm), 0.1)
    smoother.__class__ = variants._StatisticsOfTheFirst
    smoother.model = norm
    with smoother.perturbed(stream=0) as noise:
        for _ in noise.each(range(3)):
            norm(torch.randn(4, 2))
    assert norm.num_batches_tracked == 1


def test_agreement_is_a_rank_correlation_over_arms(experiment):
    keskar = experiment("keskar")
    accuracy = {(arm, seed): 70.0 + place + 0.1 * seed for place, arm in enumerate("abcdef") for seed in (0, 1)}
    found = keskar.agreement({key: 1 / value for key, value in accuracy.items()}, accuracy)
    assert found["rho"] == pytest.approx(-1)
    assert found["low"] == pytest.approx(-1)
    assert found["high"] <= -0.95


def test_by_hand_goes_on_from_the_best_value(experiment, monkeypatch, tmp_path):
    fresh = experiment("fresh")
    monkeypatch.setattr(fresh, "FOLDER", tmp_path)

    def score(folder, settings, seeds, told):
        rate = settings.optimization.lr or 0.05
        return 90.0 - abs(rate - 0.1) * 10 - settings.noise.strength

    monkeypatch.setattr(fresh.search, "score", score)
    settings, how = fresh.by_hand(25)
    assert settings.optimization.lr == 0.1
    assert settings.noise.strength == 0
    assert how["runs"] == 25
    assert how["holdout"] == 90.0


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "results").rglob("*.json")), ids=lambda path: path.stem)
def test_a_result_says_where_it_comes_from(path):
    record = json.loads(path.read_text())
    assert record["command"].startswith("python experiments/")
    assert (ROOT / record["command"].split()[1]).is_file()
    for name in ("smoothout", "commit", "torch", "python", "processor", "cores", "device"):
        assert record[name]


@pytest.mark.parametrize("number", [1, 4, 8])
def test_a_claim_is_found_again(number, experiment):
    claims = experiment("claims")
    committed = json.loads((EXPERIMENTS / "results" / f"claim-{number}.json").read_text())
    assert claims.CLAIMS[number].measure(1)["verdict"] == committed["verdict"]
