"""What the sharpness measures return."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Put behind a value that has doubts.
MARK = " (!)"


@dataclass(frozen=True)
class Center:
    """Where a measure was taken.

    Attributes:
        loss: f_0, mean loss per sample, nats for cross entropy.
        error1: Share of samples whose class is not the first, in percent; nan where targets are no classes.
        samples: N.
        weights: Number of weights that vary.
        max_gradient: Largest |df/dtheta_i|.
        versions: Of what computed it.
    """

    loss: float
    error1: float
    samples: int
    weights: int
    max_gradient: float
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Number:
    """A number as tables show it: never without its error, and marked if it is doubtful.

    Attributes:
        name: What it is, with its constants.
        value: The number.
        error: Standard error, nan for a number without.
        residual: Of an eigenvalue, ||H v - lambda v||; nan for other numbers. It says nothing of sampling.
        doubts: Why not to trust it, in words; empty if its tolerance was met.
    """

    name: str
    value: float
    error: float = math.nan
    doubts: tuple[str, ...] = ()
    residual: float = math.nan

    def __str__(self) -> str:
        residual = "" if math.isnan(self.residual) else f" (residual {self.residual:.1g})"
        return f"{self.value:.4g}{plus_minus(self.error)}{residual}{MARK if self.doubts else ''}"


@dataclass(frozen=True)
class Measure:
    """What every measure reports; ``str`` shows a doubtful value with its mark.

    Attributes:
        value: The measure, in the unit that its class states.
        center: Where it was taken.
        doubts: Why not to trust the value, in words; empty if every tolerance was met.
        seconds: Wall time.
        seed: Of whatever is random in it.
    """

    value: float
    center: Center
    doubts: tuple[str, ...]
    seconds: float
    seed: int

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The numbers of the measure that a table shows, the value first."""
        return (Number(type(self).__name__, self.value, doubts=self.doubts),)

    @property
    def details(self) -> tuple[str, ...]:
        """How the numbers were found, where that says something about them."""
        return ()

    def __str__(self) -> str:
        return str(self.numbers[0])


def plus_minus(error: float) -> str:
    """A standard error behind a value; empty if there is none.

    Example:
        >>> plus_minus(0.0123)
        ' +- 0.012'
    """
    return f" +- {error:.2g}" if error == error else ""  # noqa: PLR0124


def call_of(measure: str, options: Mapping[str, Any]) -> str:
    """Measure and arguments, the same for every checkpoint; of the noise the scale comes first."""
    first = f"{options['scale']} " if measure == "noise" else ""
    return f"{measure} {first}{json.dumps(options)}"


@dataclass(frozen=True)
class Measured:
    """One measure of one checkpoint; a row of ``sharpness.json``.

    Attributes:
        checkpoint: A checkpoint's folder, a run's, or a file of the original program.
        weights: :func:`~smoothout.results.checkpoints.weights_digest` of it then; None in files of earlier versions.
        split: Of the samples.
        samples: How many were drawn of it; None for all.
        measure, options: Name and arguments.
        record: What came of it.
    """

    checkpoint: Path
    weights: str | None
    split: str
    samples: int | None
    measure: str
    options: Mapping[str, Any]
    record: Measure

    @property
    def call(self) -> str:
        """As of :func:`call_of`."""
        return call_of(self.measure, self.options)


def read_sharpness(path: Path) -> list[Measured]:
    """Read ``sharpness.json``; of rows of the same checkpoint, call and split the last.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is another program's, or a part of a file.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["measures"]
        found = [_measured(row) for row in rows]
        return list({(each.checkpoint, each.call, each.split): each for each in found}.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected what smoothout sharpness wrote. "
            f"Measure again with this version, or leave the file out."
        ) from error


def _measured(row: Mapping[str, Any]) -> Measured:
    return Measured(
        Path(row["checkpoint"]),
        row.get("weights"),
        row["split"],
        row["samples"],
        row["measure"],
        row["options"],
        read_measure(row["kind"], row["record"]),
    )


def read_measure(kind: str, values: Mapping[str, Any]) -> Measure:
    """The record of a class's name and its fields, as JSON gives them."""
    classes = {each.__name__: each for each in Measure.__subclasses__()}
    return classes[kind](**{**_tuples(dict(values)), "center": Center(**values["center"])})


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class NoiseSharpness(Measure):
    """Expected rise under noise; ``value`` is in units of the loss.

    Attributes:
        standard_error: Of the value, over pairs.
        error1_rise: Mean rise of the share of wrong samples, in points; nan where targets are no classes.
        error1_standard_error: Of that.
        strength: a.
        scale, distribution: Of the noise.
        relative_noise: r = ||u|| / ||theta|| of the first draw.
        pairs: Antithetic pairs drawn.
        perturbed: Number of weights that got noise.
    """

    standard_error: float
    error1_rise: float
    error1_standard_error: float
    strength: float
    scale: str
    distribution: str
    relative_noise: float
    pairs: int
    perturbed: int

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The rise."""
        name = f"noise a = {self.strength:g}, {self.scale}: rise (nats)"
        return (Number(name, self.value, self.standard_error, self.doubts),)


@dataclass(frozen=True)
class BoxSharpness(Measure):
    """Largest loss in a box; ``value`` is phi, in percent of 1 + f_0, the mean over draws.

    There are searches for each start of each draw, one start after the other, draw by draw; the tuples have an entry
    for each.

    Attributes:
        standard_error: Of the value, over draws; nan for one.
        epsilon: Half the width of the box at a weight of 0.
        manifold: p, the number of directions; 0 for the full space.
        columns: Of A: "identity" (the full space), "normal" or "original".
        draws: Manifolds; 1 in the full space, where nothing is random.
        start: "best" or "x0".
        limit: Iterations that a search may make.
        method: "lbfgs" or "ascent".
        starts: "x0" or "corner".
        found: phi of the search alone.
        iterations: That it made.
        evaluations: Of f and its gradient.
        messages: Why it ended.
        on_box: Share of the coordinates of its best point that are on the edge of the box.
    """

    standard_error: float
    epsilon: float
    manifold: int
    columns: str
    draws: int
    start: str
    limit: int
    method: str
    starts: tuple[str, ...]
    found: tuple[float, ...]
    iterations: tuple[int, ...]
    evaluations: tuple[int, ...]
    messages: tuple[str, ...]
    on_box: tuple[float, ...]

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The value phi."""
        where = f", {self.manifold} directions ({self.columns})" if self.manifold else ""
        return (Number(f"box eps = {self.epsilon:g}{where}: phi (%)", self.value, self.standard_error, self.doubts),)

    @property
    def details(self) -> tuple[str, ...]:
        """Every search."""
        return tuple(
            f"box by {self.method} from {start}: phi {found:.4g}, {iterations} iterations, {evaluations} evaluations, "
            f"{on_box:.0%} of the coordinates on the box: {message}"
            for start, found, iterations, evaluations, on_box, message in zip(
                *(self.starts, self.found, self.iterations, self.evaluations, self.on_box, self.messages), strict=True
            )
        )


@dataclass(frozen=True)
class BallSharpness(Measure):
    """Largest rise in a ball; ``value`` is of the loss over all samples, in units of the loss.

    Attributes:
        per_batch: Mean rise over batches, each with the maximum of its own loss, weighted by their sizes.
        per_batch_standard_error: Of that, over batches; nan for one.
        per_batch_doubts: Why not to trust it, in words.
        radius: rho.
        steps: Of ascent.
        batch_size: Samples of a batch; the last may have fewer.
        samples: In all batches together.
    """

    per_batch: float
    per_batch_standard_error: float
    per_batch_doubts: tuple[str, ...]
    radius: float
    steps: int
    batch_size: int
    samples: int

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The rise over all samples, and per batch."""
        name = f"ball rho = {self.radius:g}"
        return _rises(name, self)


@dataclass(frozen=True)
class AdaptiveSharpness(Measure):
    """Largest rise in a ball measured in the sizes of the weights; otherwise as :class:`BallSharpness`.

    Attributes:
        per_batch, per_batch_standard_error, per_batch_doubts: As there.
        radius: rho, relative to the sizes.
        norm: p, 2 or inf.
        by: What a weight's size is: its own, "weight", or its filter's, "filter".
        steps, batch_size, samples: As there.
    """

    per_batch: float
    per_batch_standard_error: float
    per_batch_doubts: tuple[str, ...]
    radius: float
    norm: float
    by: str
    steps: int
    batch_size: int
    samples: int

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The rise over all samples, and per batch."""
        name = f"adaptive rho = {self.radius:g}, p = {self.norm:g}, by {self.by}"
        return _rises(name, self)


def _rises(name: str, record: BallSharpness | AdaptiveSharpness) -> tuple[Number, ...]:
    """Over all samples, and per batch."""
    batches = f"{name}: rise per batch of {record.batch_size}"
    return (
        Number(f"{name}: rise", record.value, doubts=record.doubts),
        Number(batches, record.per_batch, record.per_batch_standard_error, record.per_batch_doubts),
    )


@dataclass(frozen=True)
class HessianSharpness(Measure):
    """Eigenvalues and trace of the Hessian; ``value`` is the largest eigenvalue, in units of the loss per weight^2.

    A residual is ||H v - lambda v||, ||v|| = 1: some eigenvalue lies within it of the value.

    Attributes:
        residual: Of the value.
        eigenvalues: The largest, in descending order, the value first.
        residuals, eigenvalue_doubts: Of each.
        smallest: The smallest eigenvalue; nan if it was not asked for.
        smallest_residual, smallest_doubts: Of that.
        trace: Sum of all eigenvalues; nan if it was not asked for.
        trace_standard_error, trace_doubts: Of that.
        probes: Random vectors of the trace, a product each.
        products: Products with the Hessian in all.
        made_by: "double backward" or "finite differences".
        parameters: Patterns of the names of the weights; the others were held fixed.
    """

    residual: float
    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    eigenvalue_doubts: tuple[tuple[str, ...], ...]
    smallest: float
    smallest_residual: float
    smallest_doubts: tuple[str, ...]
    trace: float
    trace_standard_error: float
    trace_doubts: tuple[str, ...]
    probes: int
    products: int
    made_by: str
    parameters: tuple[str, ...]

    @property
    def numbers(self) -> tuple[Number, ...]:
        """Eigenvalues with their residuals, and the trace with its standard error."""
        block = "" if self.parameters == ("*",) else f" of {', '.join(self.parameters)}"
        found = [
            Number(
                f"hessian{block}: {'largest eigenvalue' if i == 1 else f'eigenvalue {i} from the top'}",
                value,
                doubts=doubts,
                residual=residual,
            )
            for i, (value, residual, doubts) in enumerate(
                zip(self.eigenvalues, self.residuals, self.eigenvalue_doubts, strict=True), 1
            )
        ]
        if not math.isnan(self.smallest):
            name = f"hessian{block}: smallest eigenvalue"
            found.append(Number(name, self.smallest, doubts=self.smallest_doubts, residual=self.smallest_residual))
        if not math.isnan(self.trace):
            found.append(Number(f"hessian{block}: trace", self.trace, self.trace_standard_error, self.trace_doubts))
        return tuple(found)

    @property
    def details(self) -> tuple[str, ...]:
        """Products and probes."""
        return (f"hessian by {self.made_by}: {self.products} products, {self.probes} of them for the trace",)


@dataclass(frozen=True)
class Spectrum(Measure):
    """Density of the Hessian's eigenvalues; ``value`` is their mean, tr H / n, in units of the loss per weight^2.

    Attributes:
        standard_error: Of the value, over probes.
        moments: Means of the first, second, third and fourth power of the eigenvalues.
        moment_standard_errors: Of those, over probes.
        nodes, node_weights: Of the quadrature, for each probe; the weights of a probe add up to 1.
        width: Standard deviation of the Gaussians around the nodes, in units of eigenvalues.
        grid: Where the density was taken.
        density: There; its integral is 1.
        density_standard_error: Of that, over probes.
        steps: Lanczos steps of a probe, at most.
        products: Products with the Hessian in all.
        made_by, parameters: As for :class:`HessianSharpness`.
    """

    standard_error: float
    moments: tuple[float, ...]
    moment_standard_errors: tuple[float, ...]
    nodes: tuple[tuple[float, ...], ...]
    node_weights: tuple[tuple[float, ...], ...]
    width: float
    grid: tuple[float, ...]
    density: tuple[float, ...]
    density_standard_error: tuple[float, ...]
    steps: int
    products: int
    made_by: str
    parameters: tuple[str, ...]

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The mean eigenvalue."""
        block = "" if self.parameters == ("*",) else f" of {', '.join(self.parameters)}"
        return (Number(f"spectrum{block}: mean eigenvalue", self.value, self.standard_error, self.doubts),)

    @property
    def details(self) -> tuple[str, ...]:
        """Probes, steps and the width of the density."""
        return (
            f"spectrum by {self.made_by}: {len(self.nodes)} probes of {self.steps} steps, {self.products} products, "
            f"Gaussians of width {self.width:.3g}",
        )
