"""What lines and planes through weight space are like, and the files they are kept in."""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from smoothout.results.files import write_json, write_text

_SCHEMA = 1
_SAME = 1e-6


@dataclass(frozen=True)
class Mark:
    """A known point: a checkpoint, or the model's own weights.

    Attributes:
        name: As pictures show it.
        coordinates: One for each axis.
        loss, error1: Of the model at this very state, its own running statistics included; error in percent.
        path_loss, path_error1: At these coordinates under the policy for running statistics. The same numbers, unless
            the policy gives the point other statistics than its own.
        finished: Whether all of that is measured.
    """

    name: str
    coordinates: tuple[float, ...]
    loss: float
    error1: float
    path_loss: float
    path_error1: float
    finished: bool

    @property
    def on_path(self) -> bool:
        """Whether the line or plane has the mark's own loss there, to a millionth."""
        both_nan = math.isnan(self.loss) and math.isnan(self.path_loss)
        return both_nan or math.isclose(self.loss, self.path_loss, rel_tol=_SAME)


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """What lines and planes have in common.

    Attributes:
        axes: What the coordinates count along, in words.
        lengths: Euclidean distance in weight space that a coordinate of 1 stands for, on each axis.
        bn: BatchNorm's running statistics at a point: "keep", "interpolate" or "recompute".
        marks: Known points.
        samples: N.
        weights: Number of weights that vary.
        seed: Of random axes; None where nothing is random.
        doubts: What to know before believing the picture, in words.
        seconds: Wall time.
        versions: Of what computed it.
    """

    axes: str
    lengths: tuple[float, ...]
    bn: str
    marks: tuple[Mark, ...]
    samples: int
    weights: int
    seed: int | None
    doubts: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)

    #: Fields that are arrays of numbers.
    ARRAYS: ClassVar[tuple[str, ...]] = ()

    def save(self, path: Path) -> Path:
        """Write the arrays as ``.npz`` and all else as ``.json`` beside it; readers find old files or new, not parts.

        Args:
            path: With or without the suffix ``.npz``.

        Returns:
            The path of the arrays.
        """
        import numpy as np

        path = _npz(path)
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **{name: np.array(getattr(self, name)) for name in self.ARRAYS})
        rest = {name: value for name, value in asdict(self).items() if name not in self.ARRAYS}
        new = path.with_name(path.name + ".new")
        new.write_bytes(file.getvalue())
        new.replace(path)
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        write_json(
            path.with_suffix(".json"), {"schema": _SCHEMA, "kind": type(self).__name__, "sha256": digest, **rest}
        )
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If one of the two files is not there.
            ValueError: If they are of another kind, or do not belong together.
        """
        import numpy as np

        path = _npz(path)
        content = path.read_bytes()
        rest: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        schema, kind, digest = (rest.pop(name, None) for name in ("schema", "kind", "sha256"))
        if (schema, kind) != (_SCHEMA, cls.__name__):
            raise ValueError(
                f"{path} holds a {kind} of schema {schema}; expected a {cls.__name__} of schema {_SCHEMA}. Load it "
                f"with the class, and the version, that saved it."
            )
        if digest != hashlib.sha256(content).hexdigest():
            raise ValueError(
                f"{path} is not the file that {path.stem}.json was written with; expected two files of one landscape. "
                f"Measure it again."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: _tuples(stored[name].tolist()) for name in cls.ARRAYS}
        marks = tuple(Mark(**_tupled(mark)) for mark in rest.pop("marks"))
        return cls(**arrays, marks=marks, **_tupled(rest))


@dataclass(frozen=True, kw_only=True)
class Line(Landscape):
    """The loss along a line.

    Attributes:
        alphas: Where it was asked for, rising.
        positions: Coordinates of the points; other than the alphas in mode "sin".
        losses: Mean loss per sample; NaN and infinity are what the network gave.
        errors1: Share of samples whose class is not the first, in percent; nan where targets are no classes.
        finished: Whether a point is measured; its numbers are nan if not.
        mode: "linear", or "sin": positions (1 - cos(pi alpha)) / 2.
        barrier: Between two checkpoints the most by which the loss exceeds the straight line between the losses at the
            two ends of the path, at least 0; nan if the line has no two checkpoints, or an end is not measured.
    """

    alphas: tuple[float, ...]
    positions: tuple[float, ...]
    losses: tuple[float, ...]
    errors1: tuple[float, ...]
    finished: tuple[bool, ...]
    mode: str
    barrier: float

    ARRAYS: ClassVar[tuple[str, ...]] = ("alphas", "positions", "losses", "errors1", "finished")


@dataclass(frozen=True, kw_only=True)
class Plane(Landscape):
    """The loss over a plane; row iy, column ix of an array is the point (xs[ix], ys[iy]).

    Attributes:
        xs, ys: Coordinates of the columns and the rows, rising.
        losses, errors1, finished: As those of a :class:`Line`, row by row.
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    errors1: tuple[tuple[float, ...], ...]
    finished: tuple[tuple[bool, ...], ...]

    ARRAYS: ClassVar[tuple[str, ...]] = ("xs", "ys", "losses", "errors1", "finished")


@dataclass(frozen=True)
class MeasuredLandscape:
    """Lines or planes of some checkpoints; a folder with ``landscape.json``.

    Attributes:
        folder: Theirs.
        command: What makes it again.
        checkpoints: A checkpoint's folder, a run's, or a file of the original program, each.
        weights: :func:`~smoothout.results.checkpoints.weights_digest` of each then; None in files of earlier versions.
        records: By split.
    """

    folder: Path
    command: str
    checkpoints: tuple[Path, ...]
    weights: tuple[str | None, ...] | None
    records: Mapping[str, Line | Plane]


def read_landscape(folder: Path) -> MeasuredLandscape:
    """Read the folder of a landscape.

    Raises:
        FileNotFoundError: If it has no ``landscape.json``.
        ValueError: If that is another program's, or what it names is not there or of another version.
    """
    path = folder / "landscape.json"
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        weights = content.get("weights")
        return MeasuredLandscape(
            folder,
            content["command"],
            tuple(map(Path, content["checkpoints"])),
            None if weights is None else tuple(weights),
            {split: _record(folder, split) for split in content["splits"]},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected what smoothout landscape wrote. "
            f"Measure again with this version, or leave the folder out."
        ) from error


def _record(folder: Path, split: str) -> Line | Plane:
    """The line or plane of a split."""
    plane = folder / f"plane-{split}.npz"
    return Plane.load(plane) if plane.is_file() else Line.load(folder / f"line-{split}.npz")


def write_vtp(plane: Plane, path: Path) -> None:
    """Write a plane as VTK PolyData (XML, ASCII) for ParaView.

    Points lie in the plane z = 0, in true distances; "Warp By Scalar" lifts them by one of the arrays ``loss``,
    ``log10_loss`` (if all losses are above 0) and ``error1`` (if targets are classes). Points that are not measured or
    not finite are left out, and the cells at them.

    Raises:
        ValueError: If no point is left.
    """
    numbers: dict[tuple[int, int], int] = {}
    for iy, row in enumerate(plane.losses):
        for ix, loss in enumerate(row):
            if plane.finished[iy][ix] and math.isfinite(loss):
                numbers[iy, ix] = len(numbers)
    if not numbers:
        raise ValueError("the plane has no finite loss; expected some to write. Measure it first.")
    cells = []
    for iy, ix in numbers:
        corners = [(iy, ix), (iy, ix + 1), (iy + 1, ix + 1), (iy + 1, ix)]
        if all(corner in numbers for corner in corners):
            cells.append([numbers[corner] for corner in corners])
    write_text(path, _vtp(plane, list(numbers), cells))


def _vtp(plane: Plane, points: list[tuple[int, int]], cells: list[list[int]]) -> str:
    across, up = plane.lengths
    losses = [plane.losses[iy][ix] for iy, ix in points]
    errors = [plane.errors1[iy][ix] for iy, ix in points]
    scalars = [_array("Float64", "loss", losses)]
    if min(losses) > 0:
        scalars.append(_array("Float64", "log10_loss", map(math.log10, losses)))
    if all(map(math.isfinite, errors)):
        scalars.append(_array("Float64", "error1", errors))
    places = [value for iy, ix in points for value in (plane.xs[ix] * across, plane.ys[iy] * up, 0.0)]
    connectivity = _array("Int64", "connectivity", (index for cell in cells for index in cell))
    offsets = _array("Int64", "offsets", range(4, 4 * len(cells) + 1, 4))
    return (
        '<?xml version="1.0"?>\n<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian">\n<PolyData>\n'
        f'<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="0" NumberOfStrips="0" '
        f'NumberOfPolys="{len(cells)}">\n<PointData Scalars="loss">\n{"".join(scalars)}</PointData>\n'
        f"<Points>\n{_array('Float64', 'Points', places, 3)}</Points>\n<Polys>\n{connectivity}{offsets}</Polys>\n"
        f"</Piece>\n</PolyData>\n</VTKFile>\n"
    )


def _array(kind: str, name: str, values: Iterable[float], components: int = 1) -> str:
    text = " ".join(map(repr, values))
    return (
        f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" format="ascii">\n{text}\n'
        f"</DataArray>\n"
    )


def _npz(path: Path) -> Path:
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in values.items()}
