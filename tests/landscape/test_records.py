import dataclasses
import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from landscape.networks import batches, network

from smoothout import landscape
from smoothout.results.landscape import Line, Plane, write_vtp


def a_line():
    found = landscape.line(network(2), batches(), axes=landscape.between(network(0), network(1)), alphas=(0, 0.5, 1))
    return dataclasses.replace(found, losses=(math.nan, math.inf, 1 / 3), finished=(False, True, True))


def a_plane():
    model = network(0)
    first = landscape.direction(model)
    axes = landscape.span(first, landscape.direction(model, orthogonal_to=first))
    return landscape.plane(model, batches(), axes=axes, xs=(-1, 0, 0.5), ys=(0, 1))


@pytest.mark.parametrize("made", [a_line, a_plane])
def test_records_come_back_as_they_were(made, tmp_path):
    record = made()
    path = record.save(tmp_path / "run-0.1")
    assert path == tmp_path / "run-0.1.npz"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run-0.1.json", "run-0.1.npz"]
    back = type(record).load(tmp_path / "run-0.1")
    assert str(back) == str(record)
    assert type(back.losses) is tuple
    assert back.save(path) == path


def test_arrays_are_plain_numpy_and_the_rest_is_json(tmp_path):
    path = a_plane().save(tmp_path / "plane.npz")
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored) == {"xs", "ys", "losses", "errors1", "finished"}
        assert stored["losses"].shape == stored["finished"].shape == (2, 3)
        assert stored["finished"].dtype == bool
    about = json.loads(path.with_suffix(".json").read_text())
    assert (about["kind"], about["bn"], about["marks"][0]["name"]) == ("Plane", "keep", "center")


def test_files_of_another_kind_or_another_record(tmp_path):
    path = a_plane().save(tmp_path / "x")
    with pytest.raises(ValueError, match="x.npz holds a Plane of schema 1; expected a Line of schema 1. Load it with"):
        Line.load(path)
    dataclasses.replace(a_plane(), xs=(-1.0, 0.0, 0.6)).save(tmp_path / "y")
    (tmp_path / "y.npz").replace(path)
    with pytest.raises(
        ValueError, match="x.npz is not the file that x.json was written with; expected two files of one"
    ):
        Plane.load(path)
    with pytest.raises(FileNotFoundError):
        Plane.load(tmp_path / "z")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    record = a_line()
    path = record.save(tmp_path / "x")
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        dataclasses.replace(record, barrier=3.0).save(path)
    assert path.read_bytes() == before
    assert str(Line.load(path)) == str(record)


def arrays_of(path):
    piece = ET.parse(path).getroot()[0][0]
    arrays = {each.get("Name"): [float(x) for x in each.text.split()] for each in piece.iter("DataArray")}
    return piece, arrays


def test_paraview_gets_points_cells_and_heights(tmp_path):
    plane = dataclasses.replace(a_plane(), lengths=(2.0, 3.0))
    write_vtp(plane, tmp_path / "plane.vtp")
    piece, arrays = arrays_of(tmp_path / "plane.vtp")
    assert (piece.get("NumberOfPoints"), piece.get("NumberOfPolys")) == ("6", "2")
    assert arrays["loss"] == [loss for row in plane.losses for loss in row]
    assert arrays["log10_loss"] == [math.log10(loss) for loss in arrays["loss"]]
    assert arrays["error1"] == [error for row in plane.errors1 for error in row]
    assert arrays["Points"] == [-2, 0, 0, 0, 0, 0, 1, 0, 0, -2, 3, 0, 0, 3, 0, 1, 3, 0]
    assert arrays["connectivity"] == [0, 1, 4, 3, 1, 2, 5, 4]
    assert arrays["offsets"] == [4, 8]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_paraview_gets_no_points_without_a_number(value, tmp_path):
    plane = a_plane()
    losses = (plane.losses[0], (plane.losses[1][0], plane.losses[1][1], value))
    write_vtp(dataclasses.replace(plane, losses=losses, errors1=((math.nan,) * 3,) * 2), tmp_path / "x.vtp")
    piece, arrays = arrays_of(tmp_path / "x.vtp")
    assert (piece.get("NumberOfPoints"), piece.get("NumberOfPolys")) == ("5", "1")
    assert all(map(math.isfinite, arrays["loss"]))
    assert "error1" not in arrays
    unfinished = dataclasses.replace(plane, finished=((True, True, False), (True,) * 3))
    write_vtp(unfinished, tmp_path / "y.vtp")
    assert arrays_of(tmp_path / "y.vtp")[0].get("NumberOfPoints") == "5"
    with pytest.raises(ValueError, match="the plane has no finite loss; expected some to write"):
        write_vtp(dataclasses.replace(plane, losses=((value,) * 3,) * 2), tmp_path / "z.vtp")


def test_losses_below_zero_have_no_logarithm(tmp_path):
    plane = a_plane()
    write_vtp(dataclasses.replace(plane, losses=((-1.0, 1.0, 2.0), plane.losses[1])), tmp_path / "x.vtp")
    assert "log10_loss" not in arrays_of(tmp_path / "x.vtp")[1]
