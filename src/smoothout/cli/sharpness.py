"""``smoothout sharpness``."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from smoothout import _checks
from smoothout.cli.arguments import Replacements, parse
from smoothout.cli.progress import progress
from smoothout.cli.side_by_side import grouped, report
from smoothout.launch import launched
from smoothout.measuring.sharpness import Kept, Task, Wanted, run_tasks, tasks
from smoothout.measuring.subject import Place, Sampling, label
from smoothout.train.spread import device_of_process

DESCRIPTION = "Measure how sharp the minima of checkpoints are, side by side, on the same samples and with equal seeds."
PIPE_WIDTH = 200
DIFFERENT = (
    "The checkpoints were measured on different samples: their runs had other data, or held out others (by seed)."
)

OF_DIFFERENT_SIZES = (
    "The checkpoints have different numbers of weights, so that most measures are of different things: compare "
    "networks of one architecture."
)


@dataclass(frozen=True)
class Arguments:
    """What to measure, and how."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of checkpoints, or of runs, whose best ones are taken, or files of the original program."""
    list: Path | None = None
    """A file that names checkpoints, a line each: dataset, model and path, with spaces or commas between them."""
    split: Literal["train", "holdout", "test"] = "train"
    """Which samples."""
    sampling: Sampling = field(default_factory=Sampling)
    wanted: Wanted = field(default_factory=Wanted)
    replacements: Replacements = field(default_factory=Replacements)
    name: str | None = None
    """Name of the folder of results [None: sharpness- and a hash of the checkpoints]."""
    results_dir: Path = Path("runs")
    """Folder of all runs."""
    jobs: int = 1
    """Processes that measure at the same time; leave it out under torchrun, whose processes share the work."""
    readers: int | None = None
    """Replaces the number of processes that read images too many to keep in memory."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda or cuda:INDEX."""

    def __post_init__(self) -> None:
        _checks.whole("jobs", self.jobs, at_least=1)
        if not self.checkpoints and self.list is None:
            raise ValueError("no checkpoint is named; expected some, or --list FILE. For example: runs/NAME.")


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "sharpness", DESCRIPTION)
    launched().refuse_jobs(chosen.jobs)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    places = _places(chosen)
    wanted = tasks(places, chosen.wanted)
    command = shlex.join(["smoothout", "sharpness", *arguments])
    kept = Kept(chosen.results_dir / (chosen.name or _name(wanted)), command)
    with progress(console, "measures") as tell:
        for done in run_tasks(wanted, kept, chosen.jobs):
            tell(done, len(wanted))
    paths = [place.checkpoint for place in places]
    groups = grouped({path: label(path, paths) for path in paths})
    made = {(task.place.checkpoint, task.call): kept.measured(task) for task in wanted}
    found = {
        call: {name: [made[path, call] for path in members] for name, members in groups.items()}
        for call in dict.fromkeys(task.call for task in wanted)
    }
    for line in report(found, chosen.split):
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)
    if len({record.center.weights for groups in found.values() for each in groups.values() for record in each}) > 1:
        console.print(OF_DIFFERENT_SIZES, markup=False)
    if len({task.samples_digest for task in wanted}) > 1:
        console.print(DIFFERENT, markup=False)
    console.print(f"written: {kept.path}")
    return 0


def _places(chosen: Arguments) -> list[Place]:
    """Where the checkpoints are; those of a list bring their own model and dataset."""
    given = chosen.replacements.given | ({} if chosen.readers is None else {"workers": chosen.readers})
    named = [(path, given) for path in chosen.checkpoints]
    if chosen.list is not None:
        named += [(path, {**given, "dataset": data, "model": model}) for data, model, path in read_list(chosen.list)]
    device = device_of_process(chosen.device)
    found = [Place(path, (chosen.split,), chosen.sampling, device, tuple(sorted(each.items()))) for path, each in named]
    paths = [place.checkpoint.resolve() for place in found]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is named twice; expected each checkpoint once.")
    return found


def read_list(path: Path) -> list[tuple[str, str, Path]]:
    """Lines (dataset, model, path) of a list as the original program's; empty lines and ``#`` lines are skipped.

    Raises:
        FileNotFoundError, ValueError: If it is not there, or a line has another form.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a file with lines: dataset model path.")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = [word for word in re.split(r"[,\s]+", line.strip()) if word]
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3:
            raise ValueError(
                f"line {number} of {path} is {line!r}; expected dataset, model and path, with spaces or commas "
                f"between them, such as: cifar10 resnet TrainingResults/a/model_best.pth.tar."
            )
        found.append((words[0], words[1], Path(words[2])))
    if not found:
        raise ValueError(f"{path} names no checkpoint; expected lines: dataset model path.")
    return found


def _name(wanted: Sequence[Task]) -> str:
    digests = sorted({task.digest for task in wanted})
    return f"sharpness-{hashlib.sha256(''.join(digests).encode()).hexdigest()[:8]}"
