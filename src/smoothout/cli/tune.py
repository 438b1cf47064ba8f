"""``smoothout tune``."""

import dataclasses
import datetime
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from smoothout import _checks
from smoothout.cli.arguments import parse
from smoothout.cli.compare import write_arms
from smoothout.cli.progress import progress
from smoothout.report.paper.tuning import draw_strengths
from smoothout.train import comparison, methods
from smoothout.train.config import Settings
from smoothout.train.provenance import words_of
from smoothout.train.run import prepare
from smoothout.tuning.search import Arm, Budget, Tried, best, search, start, tried
from smoothout.tuning.space import KNOWN, OF_NOISE, Choice, Space, parse_ranges

DESCRIPTION = (
    "Search for settings by hold-out accuracy, with noise and without at the same budget; test samples play no part. "
    f"What can be searched over: {', '.join(KNOWN)}."
)
WITHOUT = "no noise"
OF_OPTIMIZER = ("momentum", "weight_decay")
SEEDS = tuple(range(5))  # of the comparison that is proposed
PIPE_WIDTH = 170


@dataclass(frozen=True)
class Search:
    """What is searched over, and how long."""

    over: tuple[str, ...] = ("lr", "weight_decay", "strength")
    """Settings that are searched over; with scale, each scale has strengths of its own."""
    range: tuple[str, ...] = ()
    """Ranges in place of the usual ones, such as strength=0.001:0.1 or scale=none,filter."""
    trials: int = 20
    """Settings to try in each arm; a larger number goes on with a finished search."""
    tuning_seeds: tuple[int, ...] = (100,)
    """Seeds of each trial's runs, over which its score is the mean; others than those you will compare with."""
    prune: bool = True
    """End a trial early whose hold-out accuracy is below the median of those before it."""
    storage: str | None = None
    """An Optuna storage URL that several machines share [None: a SQLite file in the folder]."""
    name: str | None = None
    """Name of the search; the same name goes on with it [None: a time stamp]."""
    results_dir: Path = Path("runs")
    """Folder of all runs."""
    jobs: int = 1
    """Processes that train at the same time."""
    overwrite: bool = False
    """Delete the search of this name and start anew."""

    def __post_init__(self) -> None:
        _checks.whole("trials", self.trials, at_least=1)
        _checks.whole("jobs", self.jobs, at_least=1)
        if not self.over or not self.tuning_seeds:
            raise ValueError(
                f"--over is {self.over} and --tuning-seeds {self.tuning_seeds}; expected at least one of each, such as "
                f"--over lr strength --tuning-seeds 100."
            )


@dataclass(frozen=True)
class Arguments(Settings):
    """Settings of the runs, and of the search."""

    search: Search = field(default_factory=Search)

    @property
    def settings(self) -> Settings:
        """The settings of the runs alone."""
        return Settings(**{group.name: getattr(self, group.name) for group in dataclasses.fields(Settings)})


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "tune", DESCRIPTION)
    wanted = chosen.search
    arms = arms_of(chosen.settings, wanted)
    budget = Budget(wanted.trials, wanted.tuning_seeds, wanted.prune)
    folder = wanted.results_dir / (wanted.name or datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    start(folder, arms, budget, overwrite=wanted.overwrite, storage=wanted.storage)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    try:
        with progress(console, "trials") as tell:
            for done, total in search(folder, arms, budget, wanted.jobs, wanted.storage):
                tell(done, total)
    except KeyboardInterrupt:
        if wanted.name is None:
            console.print(f"Go on with: --name {folder.name}", markup=False)
        raise
    found = {arm.name: tried(folder, arm, budget, wanted.storage) for arm in arms}
    console.print(table(found))
    for line in ending(folder, arms, found):
        console.print(line, markup=False)
    return 0


def arms_of(settings: Settings, wanted: Search) -> list[Arm]:
    """The arm that was asked for, and the same without noise."""
    given = parse_ranges(wanted.range)
    settings = settings.replace(seed=Settings().schedule.seed)  # a trial's seeds are --tuning-seeds
    arms = [Arm(_name(settings), settings, Space(wanted.over, given))]
    if settings.rival.method == "smoothout" and not settings.noise.on and "strength" not in wanted.over:
        raise ValueError(
            "strength is 0 and not searched over, so that both arms would be without noise. Add strength to --over, or "
            "give --strength."
        )
    for name in wanted.over:
        if name in methods.NOISES.get(settings.rival.method, {}):
            raise ValueError(
                f"{name} is searched over and the method {settings.rival.method}, which sets it. Take it out of "
                f"--over, or leave --method out."
            )
    names = tuple(name for name in wanted.over if name not in (*OF_NOISE, "rho", "average_decay", "average_start"))
    plain = settings.replace(
        strength=0.0, clean_share=0.0, method="smoothout", rho=None, average_decay=None, average_start=None
    )
    ranges = {name: found for name, found in given.items() if name in names}
    arms.append(Arm(WITHOUT, plain, Space(names, ranges)))
    for arm in arms:
        # What cannot go together is told now, and not by the first trial.
        methods.check(arm.settings if "strength" not in arm.space.names else _with_strength(arm))
    return [_as_it_is(_without_refused(arm)) for arm in arms]


def _without_refused(arm: Arm) -> Arm:
    """With the values alone that go with the method; those that the user named must."""
    ranges = dict(arm.space.given)
    settings = arm.settings if "strength" not in arm.space.names else _with_strength(arm)
    for name in arm.space.names:
        _, values = arm.space.range(name, settings)
        if not isinstance(values, Choice):
            continue
        why = {value: _refusal(settings, name, value) for value in values.values}
        kept = tuple(value for value, reason in why.items() if reason is None)
        refused = {value: reason for value, reason in why.items() if reason is not None}
        if refused and (name in arm.space.given or len(kept) < 2):
            value, reason = next(iter(refused.items()))
            raise ValueError(f"{name} is searched over and may not be {value!r}: {reason}")
        if refused:
            ranges[name] = Choice(kept)
    return dataclasses.replace(arm, space=Space(arm.space.names, ranges))


def _refusal(settings: Settings, name: str, value: object) -> str | None:
    """Why a value of a setting does not go with the others, None if it does."""
    try:
        methods.check(settings.replace(**{name: value}))
    except (ValueError, TypeError) as error:
        return str(error)
    if settings.rival.method == "momentum_sam" and name == "momentum" and value == 0:
        return "momentum_sam follows the momentum. Give --range momentum=0.8,0.9,0.95."
    return None


def _as_it_is(arm: Arm) -> Arm:
    """With what the first epoch sets in place of settings that were not given, where those are searched over."""
    options = arm.settings.optimization
    missing = [name for name in ("lr", *OF_OPTIMIZER) if name in arm.space.names and getattr(options, name) is None]
    if not missing:
        return arm
    first = prepare(arm.settings).plan.phases[0]
    known = {"lr": first.lr, **first.arguments}
    for name in missing:
        if name not in known:
            raise ValueError(
                f"{name} is searched over and {first.optimizer} has none. Take it out of --over, or use another "
                f"--optimizer."
            )
    return dataclasses.replace(arm, settings=arm.settings.replace(**{name: known[name] for name in missing}))


def _name(settings: Settings) -> str:
    return "noise" if settings.rival.method == "smoothout" else settings.rival.method


def _with_strength(arm: Arm) -> Settings:
    if arm.settings.noise.strength == "auto":
        raise ValueError(
            "strength is 'auto' and searched over; expected one of them. Search over auto_target, or leave "
            "--strength auto out."
        )
    return arm.settings.replace(strength=arm.settings.noise.strength or 1.0)


def table(found: dict[str, list[Tried]]) -> Table:
    """The best trial of each arm."""
    drawn = Table(title="best by hold-out accuracy (%), from equal budgets")
    for column in ("arm", "hold-out", "trials", "ended early", "settings"):
        drawn.add_column(column, justify="left" if column in ("arm", "settings") else "right")
    for name, trials in found.items():
        top = best(trials)
        drawn.add_row(
            name,
            f"{top.score:.2f}",
            str(len(trials)),
            str(sum(each.pruned for each in trials)),
            ", ".join(f"{key} {_text(value)}" for key, value in sorted(top.values.items())) or "as given",
        )
    return drawn


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ending(folder: Path, arms: Sequence[Arm], found: dict[str, list[Tried]]) -> list[str]:
    """Write pictures and the arms of a comparison; returns what to say of them."""
    chosen = {arm.name: Settings.from_json(best(found[arm.name]).settings) for arm in arms}
    path = folder / "arms.toml"
    write_arms(
        path,
        [comparison.Arm(name, settings, None if name == WITHOUT else WITHOUT) for name, settings in chosen.items()],
        SEEDS,
        "The best of a search by hold-out accuracy.",
    )
    samples = len(prepare(chosen[WITHOUT]).dataset.holdout)
    lines = [
        resolution(best(found[WITHOUT]).score, samples),
        "The best of many trials looks better than it is, on the hold-out too, and more so the more it could choose: "
        "compare both on the test samples, with other seeds:",
        f"  smoothout compare {shlex.quote(str(path))}",
        "Or train with the best settings:",
        *(f"  {name}: smoothout train {shlex.join(words_of(given.given()))}" for name, given in chosen.items()),
    ]
    points = strengths(found[arms[0].name])
    if points:
        pictures = draw_strengths(points, best(found[WITHOUT]).score, folder / "strengths")
        lines.append(f"written: {', '.join(map(str, (path, *pictures)))}")
    return lines


def resolution(accuracy: float, samples: int) -> str:
    """What a hold-out of this size can tell apart: the standard error of a share, sqrt(p (1 - p) / n)."""
    error = math.sqrt(accuracy * (100 - accuracy) / samples)
    return (
        f"A hold-out of {samples:,} samples gives an accuracy of {accuracy:.1f} % with a standard error of {error:.2f} "
        f"points: do not read more into closer ones. A larger --holdout and more --tuning-seeds tell more apart."
    )


def strengths(trials: Sequence[Tried]) -> dict[str, list[tuple[float, float, bool]]]:
    """Strength, accuracy and whether it ended early, of the trials by scale."""
    points: dict[str, list[tuple[float, float, bool]]] = {}
    for each in trials:
        noise = json.loads(each.settings)["noise"]
        if noise["strength"] not in ("auto", 0):
            points.setdefault(f"scale {noise['scale']}", []).append((noise["strength"], each.score, each.pruned))
    return points
