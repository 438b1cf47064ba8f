"""``smoothout landscape``."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from smoothout import _checks, landscape
from smoothout.cli.arguments import Replacements, parse
from smoothout.cli.progress import progress
from smoothout.landscape import LinePlan, PlanePlan
from smoothout.launch import launched
from smoothout.measuring.landscape import Span, axes_of, key_of, run_points
from smoothout.measuring.points import KeptPoints
from smoothout.measuring.subject import Place, Sampling, load
from smoothout.report.paper.landscape import draw_line, draw_plane
from smoothout.results.checkpoints import weights_digest
from smoothout.results.files import write_json
from smoothout.results.landscape import Line, Plane, write_vtp
from smoothout.train.spread import device_of_process

DESCRIPTION = "The loss along a line, or over a plane, through checkpoints or in random or Hessian directions."
DRAFT = "21x21"
PIPE_WIDTH = 160


@dataclass(frozen=True)
class Arguments:
    """What to draw, and how."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder of a checkpoint, or of a run, whose best one is taken, or a model_best.pth.tar of the original program."""
    to: tuple[Path, ...] = ()
    """One more checkpoint for the line between the two, two more for the plane through the three."""
    mode: Literal["linear", "sin"] = "linear"
    """Between checkpoints: theta = (1 - alpha) A + alpha B, or the same with (1 - cos(pi alpha)) / 2 for alpha."""
    alpha: str | None = None
    """START:STEP:STOP of a line, without STOP; write --alpha=-1:... [None: -1:0.1:2.01 with --to, 0:0.05:1.01 in
    mode sin, else -1:0.04:1.01]."""
    plane: str | None = None
    """COLUMNSxROWS of a plane, such as 21x21 for a draft [None: a line; with two checkpoints in --to 21x21]."""
    extent: float | None = None
    """Plane: half its width and height, in units of the directions [None: 1; with --to the checkpoints and around]."""
    axes: Literal["random", "hessian"] = "random"
    """Without --to: random directions with the norms of the filters, or the Hessian's top eigenvectors."""
    direction: Literal["normal", "uniform"] = "normal"
    """Distribution of random directions."""
    one_dimensional: Literal["zero", "scale"] = "zero"
    """Random directions of biases and BatchNorm: none, or +-|w_i| as the original program had."""
    bn: Literal["keep", "interpolate", "recompute"] | None = None
    """Running statistics: the checkpoint's, interpolated as the weights are, or taken anew on the training samples at
    each point [None: interpolate with --to, else keep]."""
    splits: tuple[Literal["train", "holdout", "test"], ...] = ("train", "test")
    """Which samples."""
    sampling: Sampling = field(default_factory=Sampling)
    replacements: Replacements = field(default_factory=Replacements)
    name: str | None = None
    """Name of the folder of results [None: landscape- and a hash of what is measured]."""
    results_dir: Path = Path("runs")
    """Folder of all runs."""
    jobs: int = 1
    """Processes that measure at the same time; leave it out under torchrun, whose processes share the work."""
    readers: int | None = None
    """Replaces the number of processes that read images too many to keep in memory."""
    shard: str | None = None
    """I/N: measure every N-th point only, such as 2/8; a start without it, on the same folder, puts all together."""
    vtp: bool = False
    """Write planes for ParaView, too."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda or cuda:INDEX."""

    def __post_init__(self) -> None:
        _checks.whole("jobs", self.jobs, at_least=1)
        if not self.splits:
            raise ValueError("splits is empty; expected some of train, holdout and test.")
        if len(self.to) > 2:
            raise ValueError(f"--to names {len(self.to)} checkpoints; expected one for a line, or two for a plane.")
        if len(self.to) == 1 and self.plane:
            raise ValueError("--plane with one checkpoint in --to is a line's width; expected two, or none.")
        paths = [path.resolve() for path in (self.checkpoint, *self.to)]
        if len(set(paths)) < len(paths):
            raise ValueError("a checkpoint is named twice; expected others than the first in --to.")
        if self.alpha is not None and self.is_plane:
            raise ValueError("--alpha is of lines; a plane takes --plane COLUMNSxROWS and --extent.")
        if self.extent is not None and (self.to or not self.is_plane):
            raise ValueError("--extent is of planes in random or Hessian directions; leave it out.")
        if self.axes == "hessian" and self.to:
            raise ValueError("--axes hessian and --to contradict each other; give one of them.")
        if self.mode == "sin" and len(self.to) != 1:
            raise ValueError("--mode sin is of the line between two checkpoints; name the second by --to.")

    @property
    def is_plane(self) -> bool:
        """Whether there are two axes."""
        return self.plane is not None or len(self.to) == 2


def shape_of(plane: str) -> tuple[int, int]:
    """Columns and rows of COLUMNSxROWS.

    Example:
        >>> shape_of("21x11")
        (21, 11)
    """
    match = re.fullmatch(r"(\d+)[xX](\d+)", plane.strip())
    if match is None or min(int(match[1]), int(match[2])) < 2:
        raise ValueError(f"plane is {plane!r}; expected COLUMNSxROWS, at least 2 of each, such as 21x21.")
    return int(match[1]), int(match[2])


def shard_of(shard: str | None) -> tuple[int, int] | None:
    """(i, n) of I/N."""
    if shard is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", shard.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"shard is {shard!r}; expected I/N with 1 <= I <= N, such as 2/8.")
    return int(match[1]), int(match[2])


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "landscape", DESCRIPTION)
    launched().refuse_jobs(chosen.jobs)
    shard = shard_of(chosen.shard)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    span = _span(chosen)
    plan = plan_of(chosen, span)
    key = key_of(span, plan.points)
    checkpoints = [chosen.checkpoint, *chosen.to]
    weights = [weights_digest(path) for path in checkpoints]
    folder = chosen.results_dir / (chosen.name or f"landscape-{key[:8]}")
    splits = tuple(dict.fromkeys(chosen.splits))
    kept = KeptPoints(folder, key, splits, len(plan.points), shard)
    what = f"{len(plan.grid)} points" if isinstance(plan, LinePlan) else f"{len(plan.xs)} x {len(plan.ys)} points"
    console.print(f"{plan.axes.description}: {what}, {', '.join(splits)}, in {folder}", markup=False)
    with progress(console, "measurements") as tell:
        for done in run_points(span, plan, splits, kept, chosen.jobs):
            tell(done, kept.wanted)
    if shard is not None and not kept.complete:
        console.print(f"shard {chosen.shard} is finished; a start without --shard puts all together.", markup=False)
        return 0
    found: dict[str, Line | Plane] = {split: plan.record(kept.risks(split), kept.seconds) for split in splits}
    about = {
        "command": shlex.join(["smoothout", "landscape", *arguments]),
        "key": key,
        "checkpoints": checkpoints,
        "weights": weights,
        "splits": splits,
        "sampling": chosen.sampling,
        "device": span.place.device,
    }
    write_json(folder / "landscape.json", about)
    for line in [*words(found), *write(found, folder, chosen.vtp)]:
        console.print(line, markup=False)
    return 0


def _span(chosen: Arguments) -> Span:
    """What is spanned; running statistics that are taken anew need the training samples."""
    splits: tuple[str, ...] = tuple(dict.fromkeys(chosen.splits))
    readers = {} if chosen.readers is None else {"workers": chosen.readers}
    if chosen.bn == "recompute" and "train" not in splits:
        splits = (*splits, "train")
    place = Place(
        chosen.checkpoint,
        splits,
        chosen.sampling,
        device_of_process(chosen.device),
        tuple(sorted({**chosen.replacements.given, **readers}.items())),
    )
    dimensions = 2 if chosen.is_plane else 1
    vectors = None
    if chosen.axes == "hessian":
        vectors = chosen.results_dir / f"hessian-{load(place).digest}-{chosen.sampling.seed}-{dimensions}.safetensors"
    return Span(place, chosen.to, chosen.axes, dimensions, chosen.direction, chosen.one_dimensional, vectors)


def plan_of(chosen: Arguments, span: Span) -> LinePlan | PlanePlan:
    """The points to measure."""
    if not chosen.is_plane:
        alphas = landscape.alphas(chosen.alpha) if chosen.alpha is not None else None
        return landscape.plan_line(axes_of(span), alphas, chosen.bn, chosen.mode)
    columns, rows = shape_of(chosen.plane or DRAFT)
    axes = axes_of(span)
    extent = ((-chosen.extent, chosen.extent),) * 2 if chosen.extent is not None else axes.extent
    xs, ys = (landscape.evenly(count, *ends) for count, ends in zip((columns, rows), extent, strict=True))
    return landscape.plan_plane(axes, xs, ys, chosen.bn)


def words(found: Mapping[str, Line | Plane]) -> list[str]:
    """Known points, barriers and doubts of each split."""
    lines = []
    for split, record in found.items():
        lines += [
            f"{split}: {mark.name} has loss {mark.loss:.6g} nats, error {mark.error1:.2f} % ({record.samples} samples)"
            for mark in record.marks
        ]
        if isinstance(record, Line) and len(record.marks) == 2:
            lines.append(f"{split}: barrier {record.barrier:.4g} nats")
        lines += [f"{split}: (!) {doubt}" for doubt in record.doubts]
    return lines


def write(found: Mapping[str, Line | Plane], folder: Path, vtp: bool) -> list[str]:
    """Write arrays and pictures; returns what to say."""
    paths: list[Path] = []
    lines = {split: record for split, record in found.items() if isinstance(record, Line)}
    planes = {split: record for split, record in found.items() if isinstance(record, Plane)}
    for split, record in found.items():
        paths.append(record.save(folder / f"{type(record).__name__.lower()}-{split}"))
    if lines:
        paths += draw_line(lines, folder / "line")
    for split, plane in planes.items():
        paths += draw_plane(plane, folder / f"plane-{split}")
        if vtp:
            write_vtp(plane, folder / f"plane-{split}.vtp")
            paths.append(folder / f"plane-{split}.vtp")
    return [f"written: {', '.join(map(str, paths))}"]
