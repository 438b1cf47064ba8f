import math

import numpy as np
import pytest

from smoothout.measuring.points import KeptPoints
from smoothout.results.runs import Risk


def risk(loss):
    return Risk(loss, 10 * loss, math.nan, 7)


def test_finished_points_are_found_again_and_the_others_are_missing(tmp_path):
    points = KeptPoints(tmp_path, "a", ("train", "test"), 4)
    points.add("train", [0, 2], [risk(1.0), risk(math.nan)])
    points.add("test", [3], [risk(math.inf)])
    points.write()
    again = KeptPoints(tmp_path, "a", ("train", "test"), 4)
    assert again.missing("train") == [1, 3]
    assert again.missing("test") == [0, 1, 2]
    assert not again.complete
    first, second, third, fourth = again.risks("train")
    assert first == pytest.approx(risk(1.0), nan_ok=True) or (first.loss, first.error1, first.samples) == (1.0, 10.0, 7)
    assert (second, fourth) == (None, None)
    assert math.isnan(third.loss)  # finished, and not a number: not the same as unfinished
    assert again.risks("test")[3].loss == math.inf


def test_points_of_another_landscape_are_never_taken_over(tmp_path):
    KeptPoints(tmp_path, "a", ("train",), 4).write()
    with pytest.raises(ValueError, match="holds points of another landscape: .* Use another --name"):
        KeptPoints(tmp_path, "b", ("train",), 4)


def test_shards_measure_every_point_once_and_are_merged_by_any_later_start(tmp_path):
    seen = []
    for shard in ((1, 3), (2, 3), (3, 3)):
        points = KeptPoints(tmp_path / str(shard[0]), "a", ("train",), 8, shard)
        indices = points.missing("train")
        assert points.wanted == len(indices)
        points.add("train", indices, [risk(float(index)) for index in indices])
        points.write()
        seen += indices
    assert sorted(seen) == list(range(8))
    together = tmp_path / "together"
    together.mkdir()
    for shard in (1, 2, 3):
        name = f"points-{shard}of3.npz"
        (together / name).write_bytes((tmp_path / str(shard) / name).read_bytes())
    merged = KeptPoints(together, "a", ("train",), 8)
    assert merged.complete
    assert [each.loss for each in merged.risks("train")] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_a_file_needs_no_pickle(tmp_path):
    points = KeptPoints(tmp_path, "a", ("train",), 2)
    points.write()
    with np.load(tmp_path / "points.npz", allow_pickle=False) as stored:
        assert {name: stored[name].dtype.kind for name in stored} == {
            **{"key": "U", "finished": "b", "losses": "f", "errors1": "f", "samples": "i", "seconds": "f"}
        }
    assert [path.name for path in tmp_path.iterdir()] == ["points.npz"]
