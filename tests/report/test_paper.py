"""Figures for papers: files, sizes, looks, and that every word has its place."""

import dataclasses
import itertools
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.text import Text
from PIL import Image
from tests.made_folders import ball, demo_like, make_comparison, make_line, make_plane, make_run, make_sharpness, noise

from smoothout.report import paper, report
from smoothout.report.paper import bars, curves, landscape, sharpness
from smoothout.report.paper.figures import SETTINGS, WIDTHS, fit, look, style
from smoothout.report.record import Group, Interval, MeasureShown, Report, Value
from smoothout.results.comparisons import slug

NAMES = (
    "W" * 40,
    "an arm with a name of exactly 40 letters",
    "pays $5_000 and $6^7$",
    "<script>alert('arm')</script> & a_b^c {x}",
)
EVERYTHING = ["accuracy", "curves", "differences", "line", "noise", "planes-train", "sharpness"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report with everything, and one seed with a fourth of the planes wild."""
    return report.make([demo_like(tmp_path_factory.mktemp("made") / "demo")], "smoothout report demo")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A report of arms with long names."""
    path = tmp_path_factory.mktemp("long") / "runs"
    arms = {name: ([70 + i, 71 + 2 * i, 70 + i], NAMES[0], {"strength": 0.01 * i}) for i, name in enumerate(NAMES)}
    make_comparison(path, arms)
    runs = [path / slug(name) / "0" for name in NAMES]
    make_sharpness(
        path / "sharpness",
        [noise(run, a, a, error=a / 9) for run in runs for a in (0.01, 0.02, 0.1)] + [ball(run, 1.0) for run in runs],
    )
    for index, run in enumerate(runs):
        make_plane(path / f"plane-{index}", run)
    make_line(path / "line", runs[0], runs[1])
    return report.make([path], "smoothout report runs")


@pytest.fixture(scope="module")
def drawn(made):
    """Pictures by name, in one column; their figures stay open."""
    with style():
        return {each.name: each for each in paper.pictures(made.groups[0], WIDTHS[1])}


def texts(figure):
    """What can be read of a figure; labels of ticks beyond the ends of an axis are not drawn."""
    figure.draw_without_rendering()
    hidden = set()
    for axis in (axis for axes in figure.findobj(Axes) for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        reach = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - reach <= tick.get_loc() <= high + reach:
                hidden |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden and (not text.axes or text.axes.axison)
    ]


# -- files -------------------------------------------------------------------------------------------------


def test_every_format_is_written_and_can_be_read(made, tmp_path):
    group = dataclasses.replace(made.groups[0], lines=(), planes=made.groups[0].planes[:1], measures=())
    paths = paper.write(dataclasses.replace(made, groups=(group,)), tmp_path / "new" / "figures", paper.FORMATS, 1)
    assert sorted({path.stem for path in paths}) == ["accuracy", "captions", "curves", "differences", "planes-train"]
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "new" / "figures").iterdir())
    for path in paths:
        content = path.read_bytes()
        match path.suffix:
            case ".png":
                with Image.open(path) as image:
                    assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
                    assert image.width == pytest.approx(3.25 * 300, abs=1)
            case ".pdf":
                assert content.startswith(b"%PDF-")
                assert b"/FontFile2" in content
                assert b"/Type3" not in content
                assert b"/CreationDate" not in content
                [box] = re.findall(rb"/MediaBox \[ ?0 0 ([0-9.]+) ", content)
                assert float(box) == pytest.approx(3.25 * 72)
            case ".svg":
                root = ElementTree.fromstring(content)
                assert root.tag.endswith("}svg")
                assert root.get("width") == "234pt"
                assert b"<text" not in content
            case _:
                assert path.name == "captions.txt"


def test_the_same_report_makes_the_same_bytes(made, tmp_path, monkeypatch):
    group = dataclasses.replace(made.groups[0], lines=(), planes=(), measures=())
    for folder, second in (("a", "1"), ("b", "1000000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", second)  # what a file would take for the time, if it had one
        paper.write(dataclasses.replace(made, groups=(group,)), tmp_path / folder, paper.FORMATS, 1)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("columns", [1, 2])
def test_figures_are_as_wide_as_columns(made, columns):
    arms = made.groups[0].arms
    with style():
        for picture in itertools.chain(
            bars.pictures(arms, WIDTHS[columns]),
            curves.pictures({arm.name: curves.averaged(arm) for arm in arms}, WIDTHS[columns]),
        ):
            assert picture.figure.get_figwidth() == {1: 3.25, 2: 6.75}[columns]
            assert picture.figure.get_figheight() < 9


def test_global_settings_stay(made, tmp_path):
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "pdf.fonttype": 3}):
        changed = dict(mpl.rcParams)
        with style():
            assert mpl.rcParams["font.size"] == SETTINGS["font.size"]
            assert mpl.rcParams["pdf.fonttype"] == 42
        assert dict(mpl.rcParams) == changed
    assert dict(mpl.rcParams) == before


def test_groups_have_files_of_their_own(tmp_path):
    one = make_run(tmp_path / "one", seed=1)
    two = make_run(tmp_path / "two", seed=1, model="conv1d")
    made = report.make([one, two], "x")
    paths = paper.write(made, tmp_path / "figures", ["svg"], 1)
    assert [path.name for path in paths] == [
        f"{group}-{name}.svg"
        for group in ("1-mlp-on-mnist1d", "2-conv1d-on-mnist1d")
        for name in ("curves", "accuracy")
    ] + ["captions.txt"]
    assert "2-conv1d-on-mnist1d-accuracy: conv1d on mnist1d." in paths[-1].read_text()


def test_the_command_writes_figures(tmp_path, capsys):
    from smoothout.cli.main import main

    make_run(tmp_path / "run", seed=1)
    assert main(["report", str(tmp_path / "run"), "--format", "svg", "--columns", "2"]) == 0
    assert f"written: {tmp_path / 'run' / 'figures' / 'accuracy.svg'}" in capsys.readouterr().out


# -- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2])
def test_long_names_are_plain_text_inside_the_figure_and_overlap_nothing(long, columns):
    with style():
        for picture in paper.pictures(long.groups[0], WIDTHS[columns]):
            found = texts(picture.figure)
            whole = picture.figure.bbox.padded(1)
            for text in found:
                box = text.get_window_extent()
                assert whole.x0 <= box.x0 < box.x1 <= whole.x1, (picture.name, text)
                assert whole.y0 <= box.y0 < box.y1 <= whole.y1, (picture.name, text)
            for axes in picture.figure.axes:
                apart(picture.name, axes.get_yticklabels(), found, "intervaly")
                apart(picture.name, axes.get_xticklabels(), found, "intervalx")
            assert not any(text.get_parse_math() for text in found)
            if picture.name in ("accuracy", "curves", "noise", "sharpness"):
                read = {"".join(text.get_text().split()) for text in found}
                assert {"".join(name.split()) for name in NAMES} <= read


def apart(name, labels, found, side):
    """Labels of an axis leave room between each other."""
    shown = [(*getattr(label.get_window_extent(), side), label.get_text()) for label in labels if label in found]
    for low, high in itertools.pairwise(sorted(shown)):
        assert low[1] <= high[0], (name, low, high)


def test_letters_are_of_seven_to_nine_points(drawn):
    for picture in drawn.values():
        sizes = {text.get_fontsize() for text in texts(picture.figure)}
        assert all(7 <= size <= 9 for size in sizes), picture.name


def test_lines_are_broken_between_words_and_inside_of_long_ones():
    with style():
        assert fit("one two", 5) == "one two"
        assert fit("one two", 0.3) == "one\ntwo"
        broken = fit("a " + "W" * 40, 1.0)
        assert broken.split("\n")[0] == "a"
        assert broken.replace("\n", "") == "a" + "W" * 40
        assert fit("", 1) == ""


# -- what is drawn -----------------------------------------------------------------------------------------


def test_everything_is_drawn(drawn):
    assert sorted(drawn) == EVERYTHING


def test_arms_look_the_same_everywhere_and_differ_without_colour(drawn):
    looks = [look(index) for index in range(32)]
    assert len({(each.dash, each.marker) for each in looks}) == 32
    assert len({each.dash for each in looks[:4]}) == 4

    def legend(name):
        [found] = drawn[name].figure.legends
        return [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in found.get_lines()]

    assert legend("curves") == legend("noise") == [(each.colour, each.dash, each.marker) for each in looks[:4]]


def test_bands_reach_over_seeds_at_epochs_that_all_evaluated():
    runs = [{"test_error1": (50.0, None, 20.0, 9.0)}, {"test_error1": (60.0, 40.0, 30.0)}]
    assert curves.band(runs, "test_error1") == [(1, 45.0, 40.0, 50.0), (3, 75.0, 70.0, 80.0)]
    assert curves.band([], "test_loss") == []


def test_curves_are_of_finished_runs_or_of_all_that_have_begun(tmp_path):
    def arm(*runs):
        made = [make_run(tmp_path / str(index), seed=index, **run) for index, run in enumerate(runs)]
        [shown] = report.make(made, "x").groups[0].arms
        return shown

    both = arm({"accuracy": 80}, {"accuracy": 70, "done": 2})
    assert [len(run["test_loss"]) for run in curves.averaged(both)] == [5]
    begun = dataclasses.replace(both, runs=tuple(dataclasses.replace(run, state="running") for run in both.runs))
    assert [len(run["test_loss"]) for run in curves.averaged(begun)] == [5, 2]


def test_certain_differences_are_filled_and_others_hatched(made):
    sure, unsure, few = Interval(2.0, 1.0, 3.0, 3), Interval(-1.0, -3.0, 1.0, 3), Interval(2.0, 1.0, 3.0, 2)
    arms = [
        dataclasses.replace(arm, difference=gap)
        for arm, gap in zip(made.groups[0].arms, (sure, unsure, few, None), strict=True)
    ]
    with style():
        accuracy, differences = bars.pictures(arms, WIDTHS[1])
        found = [
            (bar.get_hatch(), mpl.colors.to_hex(bar.get_facecolor())) for bar in differences.figure.axes[0].patches
        ]
        zero = [line for line in differences.figure.axes[0].lines if list(line.get_xdata()) == [0, 0]]
    assert found == [("", bars.CERTAIN.lower()), (bars.HATCH, "#ffffff"), (bars.HATCH, "#ffffff")]
    assert len(zero) == 1
    assert "hatched: it is not certain" in differences.caption
    assert len(accuracy.figure.axes[0].patches) == 4


def test_one_colour_scale_for_all_planes_of_a_split(drawn):
    figure = drawn["planes-train"].figure
    filled = [each for each in figure.findobj(ContourSet) if each.filled]
    assert len(filled) == 4
    assert len({(each.norm.vmin, each.norm.vmax, tuple(each.levels)) for each in filled}) == 1
    assert len(figure.axes) == 4 + 1
    assert filled[0].norm.vmin == pytest.approx(-2)
    assert filled[0].norm.vmax == pytest.approx(math.log10(0.01 + 4 * 3))


def test_a_plane_whose_losses_are_all_alike_among_others(made):
    first, second, *_ = made.groups[0].planes
    flat = dataclasses.replace(first, losses=((0.5,) * len(first.xs),) * len(first.ys))
    nothing = dataclasses.replace(first, losses=((None,) * len(first.xs),) * len(first.ys))
    thin = dataclasses.replace(first, ys=(0.0,), losses=first.losses[:1])
    with style():
        [picture] = landscape.pictures((), (flat, second, nothing, thin), WIDTHS[1])
        assert len([each for each in picture.figure.findobj(ContourSet) if each.filled]) == 2
        assert list(landscape.pictures((), (nothing, thin), WIDTHS[1])) == []


# -- what is missing ---------------------------------------------------------------------------------------


def value(arm, number, **changes):
    whole = Value(arm, number, 0.1, number and number - 0.2, number and number + 0.2, (0,), ())
    return dataclasses.replace(whole, **changes)


def test_measures_without_a_number_or_an_error(made):
    values = (
        value("small batch", 1.0, doubts=("doubtful",)),
        value("large batch", None),
        value("SmoothOut", 2.0, low=None, high=None),
    )
    box = MeasureShown("box", "worst", None, None, "train", values, ())
    weak = MeasureShown("noise", "average", 0.1, "noise, uniform", "train", values, ())
    none = dataclasses.replace(weak, curve="noise, normal", values=(value("large batch", None),))
    with style():
        curve, dots = sharpness.pictures([arm.name for arm in made.groups[0].arms], (box, weak, none), WIDTHS[1])
        words = [text.get_text() for text in texts(dots.figure)]
    assert "not finite" in words
    assert "AdaSmoothOut" not in words
    assert "Hollow dots are doubtful: box, small batch: doubtful." in dots.caption
    assert "where no error is known there is no bar" in dots.caption
    assert len(curve.figure.axes) == 1


def test_one_seed_has_no_interval(tmp_path):
    path = make_comparison(tmp_path / "a", {"a": ([70], "b", {}), "b": ([71], None, {"strength": 0.1})}, seeds=(0,))
    with style():
        found = {each.name: each for each in paper.pictures(report.make([path], "x").groups[0], WIDTHS[1])}
        assert sorted(found) == ["accuracy", "curves", "differences"]
        assert "70.00" in [text.get_text() for text in texts(found["accuracy"].figure)]
        assert "\N{MINUS SIGN}1.00" in [text.get_text() for text in texts(found["differences"].figure)]
    assert "one seed has no interval" in found["accuracy"].caption


def test_runs_that_are_not_finished_have_curves_alone(tmp_path):
    made = report.make([make_run(tmp_path / "a", done=1)], "x")
    paths = paper.write(made, tmp_path / "figures", ["svg"], 2)
    assert [path.name for path in paths] == ["curves.svg", "captions.txt"]


def test_nothing_to_draw(tmp_path):
    made = report.make([make_run(tmp_path / "a", done=0)], "x")
    for empty in (made, Report("", "", "", (), ()), Report("", "", "", (Group("", {}, (), (), (), (), (), ()),), ())):
        with pytest.raises(ValueError, match="there is nothing to draw: no run has finished an epoch, and nothing was"):
            paper.write(empty, tmp_path / "figures", paper.FORMATS, 1)
    assert not (tmp_path / "figures").exists()


def test_importing_figures_does_not_import_matplotlib():
    script = "import sys; from smoothout.report import paper; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_numbers_of_a_plane_are_in_their_place(made):
    # x runs across and y up: the bowl is steeper along y.
    with style():
        [picture] = landscape.pictures((), made.groups[0].planes[1:2], WIDTHS[1])
    axes = picture.figure.axes[0]
    assert axes.get_xlim() == (-3, 3)
    assert axes.get_ylim() == (-2, 2)
    assert np.isclose(axes.get_aspect(), 1)
