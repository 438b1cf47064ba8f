import json

import pytest

from smoothout.results.files import write_json, write_text
from smoothout.results.runs import EpochMetrics, Risk, RunResult, read_metrics, read_run, write_metrics

ROW = EpochMetrics(
    1,
    *([0.1, float("nan"), 1 / 3] * 3),
    lr=1e-3,
    strength=0.05,
    r=0.2,
    updates=4,
    distance=1.5,
    seconds=2.0,
    samples_per_second=3.0,
)
RESULT = RunResult(0, 2, 8, 1, *([50.0] * 5), *([0.5] * 3), seconds=1.25)


def test_metrics_come_back_as_they_were(tmp_path):
    write_metrics(tmp_path / "metrics.csv", [ROW])
    [back] = read_metrics(tmp_path / "metrics.csv")
    assert repr(back) == repr(ROW)
    assert isinstance(back.updates, int)


def test_results_come_back_as_they_were(tmp_path):
    write_json(tmp_path / "result.json", RESULT)
    assert read_run(tmp_path / "result.json") == RESULT


def test_records_within_records(tmp_path):
    write_json(tmp_path / "x.json", {"risks": [Risk(0.5, 1.0, 2.0, 10)], "path": tmp_path})
    assert json.loads((tmp_path / "x.json").read_text())["risks"][0]["samples"] == 10
    with pytest.raises(TypeError, match="cannot write a set as JSON"):
        write_json(tmp_path / "x.json", {"a": {1}})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
