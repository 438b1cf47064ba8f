import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from smoothout.report.paper.landscape import draw_line, draw_plane
from smoothout.results.landscape import Line, Mark, Plane

GREY = (204, 204, 204)
COMMON = {
    "axes": "some axes",
    "bn": "keep",
    "samples": 10,
    "weights": 5,
    "seed": 0,
    "doubts": ("doubtful",),
    "seconds": 1.0,
}


def line(**changes):
    alphas = (-1.0, -0.5, 0.0, 0.5, 1.0)
    whole = Line(
        **COMMON,
        lengths=(3.0,),
        marks=(Mark("A", (0.0,), 0.1, 5.0, 0.1, 5.0, True), Mark("B", (1.0,), 0.2, 6.0, 0.9, 30.0, True)),
        alphas=alphas,
        positions=alphas,
        losses=(10.0, 1.0, 0.1, 1.0, 0.9),
        errors1=(90.0, 50.0, 5.0, 50.0, 30.0),
        finished=(True,) * 5,
        mode="linear",
        barrier=0.5,
    )
    return dataclasses.replace(whole, **changes)


def plane(**changes):
    whole = Plane(
        **COMMON,
        lengths=(2.0, 2.0),
        marks=(Mark("center", (0.0, 0.0), 0.1, 5.0, 0.1, 5.0, True),),
        xs=(-1.0, -0.5, 0.0, 0.5, 1.0),
        ys=(-1.0, 0.0, 1.0),
        losses=((10.0, 5.0, 2.0, 5.0, 10.0), (5.0, 1.0, 0.1, 1.0, 5.0), (10.0, 5.0, 2.0, 5.0, 10.0)),
        errors1=((50.0,) * 5,) * 3,
        finished=((True,) * 5,) * 3,
    )
    return dataclasses.replace(whole, **changes)


def with_row(row, finished=(True,) * 5):
    whole = plane()
    return plane(
        losses=(whole.losses[0], row, whole.losses[2]), finished=(whole.finished[0], finished, whole.finished[2])
    )


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def grey_share(path):
    return float((pixels_of(path) == GREY).all(axis=2).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": (math.inf, 1.0, 0.1, math.nan, math.nan), "finished": (True,) * 4 + (False,)},
        {"losses": (-1.0, 1.0, 0.0, 1.0, 0.9), "errors1": (math.nan,) * 5},
        {"mode": "sin", "positions": (0.0, 0.1, 0.2, 0.5, 1.0), "barrier": math.nan},
    ],
)
def test_a_line_is_drawn_twice(changes, tmp_path):
    paths = draw_line({"train": line(**changes), "test": line()}, tmp_path / "line-0.1")
    assert [path.name for path in paths] == ["line-0.1.png", "line-0.1.pdf"]
    assert all(path.stat().st_size > 5000 for path in paths)


def test_a_plane_is_drawn_twice_and_nothing_of_it_is_grey(tmp_path):
    paths = draw_plane(plane(), tmp_path / "plane-0.1")
    assert [path.name for path in paths] == ["plane-0.1.png", "plane-0.1.pdf"]
    assert grey_share(paths[0]) < 1e-3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_grey(value, tmp_path):
    png, _ = draw_plane(with_row((5.0, value, 0.1, 1.0, 5.0)), tmp_path / "plane")
    assert grey_share(png) > 0.03


def test_what_is_not_measured_stays_grey(tmp_path):
    row = (5.0, math.nan, 0.1, 1.0, 5.0)
    png, _ = draw_plane(with_row(row, (True, False, True, True, True)), tmp_path / "plane")
    assert grey_share(png) > 0.03


@pytest.mark.parametrize("row", [(5.0, -3.0, 0.1, 1.0, 5.0), None])
def test_losses_below_zero_and_flat_planes_are_drawn(row, tmp_path):
    png, _ = draw_plane(plane(losses=((1.0,) * 5,) * 3) if row is None else with_row(row), tmp_path / "a")
    assert grey_share(png) < 1e-3


@pytest.mark.parametrize("lengths", [(3.0, 1.0), (1.0, 2.0)])
def test_both_axes_have_one_scale(lengths, tmp_path):
    nearly_all_grey = ((1.0, 2.0, *(math.nan,) * 3), (2.0, 3.0, *(math.nan,) * 3), (math.nan,) * 5)
    png, _ = draw_plane(plane(losses=nearly_all_grey, lengths=lengths), tmp_path / "plane")
    grey = (pixels_of(png) == GREY).all(axis=2)
    rows, columns = (np.flatnonzero(grey.sum(axis=axis) > 50) for axis in (1, 0))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(lengths[0] / lengths[1], rel=0.03)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no loss is finite; expected some to draw"):
        draw_line({"train": line(losses=(math.nan,) * 5)}, tmp_path / "x")
    with pytest.raises(ValueError, match="no loss is finite; expected some to draw"):
        draw_plane(plane(losses=((math.inf,) * 5,) * 3), tmp_path / "x")
    with pytest.raises(ValueError, match="the plane has 5 x 1 points; expected at least 2 x 2 to draw contours"):
        draw_plane(plane(ys=(0.0,), losses=((1.0,) * 5,)), tmp_path / "x")
