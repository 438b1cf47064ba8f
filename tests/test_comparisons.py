import json
from pathlib import Path

import pytest

from smoothout.results.comparisons import is_comparison, read_comparison, summarise
from smoothout.results.runs import RunResult
from smoothout.train import comparison
from smoothout.train.config import Settings


def result(seed, test, seconds=1.0):
    return RunResult(seed, 2, 8, 1, 90.0, 80.0 + seed, test, 81.0, test + 1, *([0.5] * 3), seconds=seconds)


def test_a_comparison_comes_back_as_it_was_started(tmp_path):
    arms = [
        comparison.Arm("large batch", Settings().replace(strength=0.0), None),
        comparison.Arm("large batch + noise", Settings().replace(strength=0.1), "large batch"),
    ]
    comparison.start(tmp_path / "c", arms, (3, 4), overwrite=False, resume=False)
    back = read_comparison(tmp_path / "c")
    assert back.seeds == (3, 4)
    assert {name: arm.against for name, arm in back.arms.items()} == {arm.name: arm.against for arm in arms}
    assert back.arms["large batch + noise"].settings == json.loads(arms[1].settings.to_json())
    assert back.folder("large batch + noise", 4) == Path("large-batch-noise/4")
    with pytest.raises(ValueError, match="the arm is 'other'; expected one of large batch, large batch"):
        back.folder("other", 4)


def test_what_is_no_comparison(tmp_path):
    assert not is_comparison(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"comparison.json is not there; expected the folder of a comparison"):
        read_comparison(tmp_path)
    for text in ("[]", "{}", '{"seeds": [0], "arms": {"a": {"against": null}}}', '{"seeds": [0], "ar'):
        (tmp_path / "comparison.json").write_text(text)
        with pytest.raises(ValueError, match=r"comparison.json cannot be read .*expected what smoothout compare wrote"):
            read_comparison(tmp_path)
    assert not is_comparison(tmp_path)


def test_arms_are_paired_by_the_seeds_that_both_finished():
    finished = {
        "a": {0: result(0, 70.0, 2.0), 1: result(1, 72.0, 4.0)},
        "b": {1: result(1, 75.0), 2: result(2, 99.0)},
    }
    a, b, c = summarise({"a": None, "b": "a", "c": "c"}, finished)
    assert (a.test_last.mean, a.test_best.mean, a.holdout_last.mean, a.seconds.mean) == (71.0, 72.0, 80.5, 3.0)
    assert (a.against, a.difference_last) == (None, None)
    assert (b.against, b.difference_last.mean, b.difference_last.count, b.difference_best.mean) == ("a", 3.0, 1, 3.0)
    assert (c.runs, c.updates, c.against, c.difference_last) == (0, 0, None, None)
