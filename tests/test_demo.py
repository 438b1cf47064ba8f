"""The demo's arms are what the choice on the hold-out says, and its promise is kept by the arms' names."""

import importlib.util
import json
from pathlib import Path

import pytest

from smoothout.cli.compare import read_arms
from smoothout.train import comparison

DEMO = Path(__file__).parents[1] / "experiments" / "demo"


def test_the_readmes_table_is_the_measured_one():
    spec = importlib.util.spec_from_file_location("table", DEMO / "table.py")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    assert table.table(DEMO / "results.json") in DEMO.parents[1].joinpath("README.md").read_text()


def test_arms_are_written_from_the_choice():
    spec = importlib.util.spec_from_file_location("choose", DEMO / "choose.py")
    choose = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(choose)
    choice = json.loads((DEMO / "choice.json").read_text())
    assert choose.arms_toml(choice) == (DEMO / "arms.toml").read_text()
    arms, seeds = read_arms(DEMO / "arms.toml")
    assert not set(seeds) & set(choice["seeds"])
    tuned = {name: len(trials) for name, trials in choice["trials"].items() if name.startswith("tuned")}
    assert len(set(tuned.values())) == 1  # equal budgets
    baseline = max(choice["trials"]["tuned large batch"], key=lambda trial: trial["holdout_accuracy"])["options"]
    tried = [trial["options"]["weight_decay"] for trial in choice["trials"]["tuned large batch + SmoothOut"]]
    assert baseline["weight_decay"] in tried  # the noisy arm may have the baseline's best decay, too
    assert [arm.name for arm in arms] == [
        "small batch",
        "large batch",
        "large batch + SmoothOut",
        "large batch + AdaSmoothOut",
        "tuned large batch",
        "tuned large batch + SmoothOut",
        "small batch + SmoothOut",
    ]


@pytest.mark.parametrize(
    ("everything", "runs", "planes", "lines", "reports"), [(False, 4, 4, 0, 1), (True, 35, 7, 6, 2)]
)
def test_what_make_demo_and_make_figures_measure(everything, runs, planes, lines, reports, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("look", DEMO / "look.py")
    look = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(look)
    arms, seeds = read_arms(DEMO / "arms.toml")
    monkeypatch.chdir(tmp_path)
    comparison.start(look.DEMO, arms, seeds, overwrite=False, resume=False)
    made = []
    monkeypatch.setattr(look, "main", lambda words: made.append(words) or 0)
    assert look.look(everything) == 0
    assert sum("/".join(look.DEMO.parts) in word for word in made[0]) == runs + 1  # and where results go
    assert [words[0] for words in made] == ["sharpness", *["landscape"] * (planes + lines), *["report"] * reports]
    assert sum("21x21" in words for words in made) == planes
    assert sum("--to" in words for words in made) == lines
    monkeypatch.setattr(look, "main", lambda words: 2)
    assert look.look(everything) == 2
