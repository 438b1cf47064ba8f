"""``smoothout landscape``."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from smoothout import _checks, landscape
from smoothout.cli.arguments import Replacements, parse
from smoothout.cli.progress import progress
from smoothout.measuring.landscape import Span, Surface, grid, measured, open_points
from smoothout.measuring.subject import Place, Sampling
from smoothout.report.landscape import draw_line, draw_plane
from smoothout.results.landscape import Line, Plane, write_vtp
from smoothout.train.device import choose

DESCRIPTION = "The loss along a line, or over a plane, through checkpoints or in random or Hessian directions."
ALPHA_TO, ALPHA = "-1:0.1:2.01", "-1:0.04:1.01"
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
    """START:STEP:STOP of a line, without STOP; write --alpha=-1:... [None: -1:0.1:2.01 with --to, else -1:0.04:1.01]."""
    plane: str | None = None
    """COLUMNSxROWS of a plane, such as 21x21 for a draft [None: a line; with two checkpoints in --to 21x21]."""
    extent: float = 1.0
    """Plane: half its width, in units of the directions; through checkpoints the share of their distance around them."""
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
    workers: int = 1
    """Processes that measure at the same time."""
    shard: str | None = None
    """I/N: measure every N-th point only, such as 2/8; a start without it, on the same folder, puts all together."""
    vtp: bool = False
    """Write planes for ParaView, too."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda or cuda:INDEX."""

    def __post_init__(self) -> None:
        _checks.whole("workers", self.workers, at_least=1)
        if not self.splits:
            raise ValueError("splits is empty; expected some of train, holdout and test.")
        if len(self.to) > 2:
            raise ValueError(f"--to names {len(self.to)} checkpoints; expected one for a line, or two for a plane.")
        if len(self.to) == 1 and self.plane:
            raise ValueError("--plane with one checkpoint in --to is a line's width; expected two, or none.")
        if self.alpha is not None and self.is_plane:
            raise ValueError("--alpha is of lines; a plane takes --plane COLUMNSxROWS and --extent.")
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
