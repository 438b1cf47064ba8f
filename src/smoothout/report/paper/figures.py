"""What all figures share: looks, fonts, widths, a canvas without a window, and the files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Dash = Literal["-", "--", "-.", ":"]

#: Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#8C8C00")
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

#: Widths of one column and of two of a paper, in inches.
WIDTHS = {1: 3.25, 2: 6.75}
#: Sizes of letters, in points; figures are drawn in their final size.
SMALL, MIDDLE = 7, 8
#: Height of a line of small letters, in inches.
LINE = 1.3 * SMALL / 72
#: Whatever else a machine's own settings say, figures are drawn with these.
SETTINGS: dict[str, Any] = {
    "font.size": SMALL,
    "axes.labelsize": SMALL,
    "axes.titlesize": MIDDLE,
    "figure.titlesize": MIDDLE,
    "legend.fontsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "errorbar.capsize": 2,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.04,
    "figure.constrained_layout.wspace": 0.06,
    "savefig.dpi": 300,
    "figure.dpi": 300,
    "text.parse_math": False,  # an arm may be called "$x_1$"
    "text.usetex": False,
    # TrueType, which can be searched and edited; publishers refuse Type 3.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    # Letters as outlines: an SVG cannot hold a font, and without it words would be wider or narrower than their place.
    "svg.fonttype": "path",
    "svg.hashsalt": "smoothout",
}
#: Without the time, so that the same numbers make the same bytes.
_METADATA: Mapping[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Picture:
    """A figure before it is written.

    Attributes:
        name: Of its files, without the suffix.
        figure: Made inside :func:`style`.
        caption: What a reader must know of it.
    """

    name: str
    figure: "Figure"
    caption: str


@dataclass(frozen=True)
class Look:
    """How an arm is drawn, in all figures; marker and dash tell arms apart where colours cannot."""

    colour: str
    dash: Dash
    marker: str


def look(index: int) -> Look:
    """Of the arm at a place of its group; 32 differ in dash or marker.

    Example:
        >>> look(1)
        Look(colour='#E69F00', dash='--', marker='s')
    """
    return Look(COLOURS[index % 8], DASHES[(index + index // 8) % 4], MARKERS[index % 8])


@contextmanager
def style() -> Iterator[None]:
    """Figures that are made, and written, inside have our settings; outside nothing changes."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast(Any, SETTINGS))
        yield


def make_figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> "Figure":
    """A figure of so many inches, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: "Figure", stem: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write ``stem.png``, ``stem.pdf``, ... ; to be called inside :func:`style`."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for path, suffix in zip(paths, formats, strict=True):
        figure.savefig(path, format=suffix, metadata=_METADATA.get(suffix, {}))
    return paths


# -- words -------------------------------------------------------------------------------------------------


def fit(text: str, inches: float, size: float = SMALL) -> str:
    """The text in lines of so many inches, broken between words, and inside of those that are longer than a line."""
    lines = [""]
    for index, word in enumerate(text.split()):
        joined = f"{lines[-1]} {word}" if index else word
        if _width(joined, size) <= inches:
            lines[-1] = joined
            continue
        pieces = list(_pieces(word, inches, size))
        lines += pieces if lines[-1] else []
        if not lines[0]:
            lines = pieces
    return "\n".join(lines)


def _pieces(word: str, inches: float, size: float) -> Iterator[str]:
    piece = ""
    for letter in word:
        if piece and _width(piece + letter, size) > inches:
            yield piece
            piece = ""
        piece += letter
    yield piece


def _width(text: str, size: float) -> float:
    """Inches that a text takes in one line."""
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    across = TextPath((0, 0), text, size=size).vertices[:, 0]
    return float(across.max() - across.min()) / 72


def lines_of(text: str) -> int:
    """How many lines a text has."""
    return text.count("\n") + 1


def add_title(figure: "Figure", text: str) -> None:
    """A title in as many lines as it takes; the figure grows by them."""
    title = fit(text, 0.96 * figure.get_figwidth(), MIDDLE)
    figure.suptitle(title)
    figure.set_figheight(figure.get_figheight() + lines_of(title) * MIDDLE * 1.25 / 72)


def add_legend(figure: "Figure", handles: "Sequence[Artist]", labels: Sequence[str]) -> None:
    """A legend below, in as many columns as the width has room for; the figure grows by its height."""
    width = figure.get_figwidth()
    names = [fit(label, 0.85 * width) for label in labels]
    for rows in range(-(-len(names) // 5), len(names) + 1):
        columns = -(-len(names) // rows)
        legend = figure.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.2)
        extent = legend.get_window_extent()
        if extent.width <= 0.98 * figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
            return
        legend.remove()


def key(look: Look, label: str) -> "Artist":
    """What stands for an arm in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=look.colour, linestyle=look.dash, marker=look.marker, label=label)


def short(value: float) -> str:
    """A number in three digits.

    Example:
        >>> short(1923.0), short(0.0413), short(1e-7)
        ('1920', '0.0413', '1e-07')
    """
    return f"{float(f'{value:.3g}'):g}"


# -- axes --------------------------------------------------------------------------------------------------


def logarithmic(axes: "Axes", *names: Literal["x", "y"]) -> None:
    """Axes by the logarithm with numbers in plain text; to be called when everything is drawn."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis: Axis = getattr(axes, f"{name}axis")
        _log_ticks(axis)


def _log_ticks(axis: "Axis") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = sorted(axis.get_view_interval())
    ratio = high / low
    if ratio < 5:
        axis.set_major_locator(MaxNLocator(4))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 100 else (1,), numticks=6 if ratio >= 100 else 9))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def stack(names: Sequence[str]) -> tuple[list[float], float]:
    """Places of rows from the top, each as high as its name needs, and their height together; both in lines."""
    places, height = [], 0.0
    for name in names:
        row = max(1.8, lines_of(name) + 0.6)
        places.append(height + row / 2)
        height += row
    return places, height


def name_rows(axes: "Axes", names: Sequence[str]) -> list[float]:
    """Rows with their names on the left, the first on top; returns their places."""
    places, height = stack(names)
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(height, 0)
    return places


def panels(figure: "Figure", count: int, columns: int, **how: Any) -> "list[Axes]":
    """So many panels in rows; places that stay empty are not drawn."""
    rows = -(-count // columns)
    grid = list(figure.subplots(rows, columns, squeeze=False, **how).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]
