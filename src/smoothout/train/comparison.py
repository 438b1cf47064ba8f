"""Run arms x seeds in worker processes; `results.comparisons` says what comes of them."""

import csv
import io
import json
import shutil
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from smoothout.results.comparisons import NAME, is_comparison, slug
from smoothout.results.files import write_json, write_text
from smoothout.results.processes import interrupted, recorded
from smoothout.results.runs import EpochMetrics, Risk, RunResult, read_run
from smoothout.train import device
from smoothout.train.config import Settings
from smoothout.train.loop import train
from smoothout.train.provenance import command_of, machine, versions
from smoothout.train.run import prepare
from smoothout.train.run_folder import RunFolder, refuse_foreign
from smoothout.train.workers import processes


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: What the table calls it.
        settings: All but the seed.
        against: The arm that it is compared with, None for itself.
    """

    name: str
    settings: Settings
    against: str | None


@dataclass(frozen=True)
class Outcome:
    """What came of one run."""

    arm: str
    seed: int
    result: RunResult | None
    error: str | None


class Silent:
    """Watches a run without a word; the comparison tells when it is done."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def started(self, lines: list[str], _updates: int) -> None:
        """Write what the run is to its log."""
        for line in lines:
            self._folder.log(line)

    def updated(self, seen: Callable[[], Risk]) -> None:
        """Nothing."""

    def finished_epoch(self, row: EpochMetrics, best: bool) -> None:
        """Nothing: metrics.csv has it."""


def check_arms(arms: Sequence[Arm]) -> None:
    """Raise unless the arms can be told apart and compared."""
    names = [arm.name for arm in arms]
    if len({slug(name) for name in names}) < len(names):
        raise ValueError(f"two arms share a folder name: {', '.join(names)}. Give them names that differ in letters.")
    for arm in arms:
        if arm.against is not None and arm.against not in names:
            raise ValueError(f"arm {arm.name!r} is against {arm.against!r}; expected one of {', '.join(names)}.")


def start(folder: Path, arms: Sequence[Arm], seeds: Sequence[int], *, overwrite: bool, resume: bool) -> None:
    """Make a comparison's folder, or check that the one there is of the same arms.

    Raises:
        FileExistsError: If it exists and neither was asked for.
        FileNotFoundError: If it is to be resumed and is not there.
        ValueError: If it is to be resumed and other arms or seeds were run there.
    """
    check_arms(arms)
    record = {
        "seeds": list(seeds),
        "arms": {arm.name: {"against": arm.against, "settings": arm.settings.to_json()} for arm in arms},
    }
    path = folder / NAME
    if resume:
        if not is_comparison(folder):
            raise FileNotFoundError(f"{folder} holds no comparison; start it without --resume.")
        if json.loads(path.read_text(encoding="utf-8")) != record:
            raise ValueError(f"{folder} holds a comparison of other arms or seeds; use --overwrite or another --name.")
        return
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"{folder} exists. Use --resume, --overwrite, or another --name.")
        refuse_foreign(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(path, record)


def run_all(
    folder: Path, arms: Sequence[Arm], seeds: Sequence[int], workers: int, told: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run every arm with every seed; runs that are finished are read, others go on or start."""
    outcomes = []
    paths = {(arm.name, seed): folder / slug(arm.name) / str(seed) for arm in arms for seed in seeds}
    try:
        with processes(workers, "smoothout.train.loop") as pool:
            _load_data_once(arms, seeds)
            futures = {
                pool.submit(_run, paths[arm.name, seed], arm.settings.replace(seed=seed)): (arm.name, seed)
                for seed in seeds
                for arm in arms
            }
            for future in as_completed(futures):
                outcomes.append(_outcome(*futures[future], future))
                told(outcomes[-1])
    except KeyboardInterrupt:
        for path in paths.values():
            interrupted(path)  # their processes were ended, and could not say so
        raise
    order = {(arm.name, seed): (i, seed) for i, arm in enumerate(arms) for seed in seeds}
    return sorted(outcomes, key=lambda outcome: order[outcome.arm, outcome.seed])


def _load_data_once(arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Load every data set here first: a missing one is told at once, a generated one is made once."""
    from smoothout.train import data

    for settings in {arm.settings.data for arm in arms}:
        data.load(settings, seeds[0])


def _run(path: Path, settings: Settings) -> RunResult:
    """One run, in a worker process."""
    if (path / "result.json").is_file():
        return read_run(path / "result.json")
    resume = (path / "config.json").is_file()
    # Before the run is prepared: why that failed is kept there, too.
    folder = RunFolder.open(path) if resume else RunFolder.create(path, settings, overwrite=True)
    try:
        with recorded(path, command_of(settings), versions(), machine(device.choose(settings.schedule.device))):
            return train(prepare(settings, resume=resume), folder, Silent(folder), resume=resume)
    except Exception:
        folder.log(traceback.format_exc())  # the comparison itself shows one line
        raise


def _outcome(arm: str, seed: int, future: "Future[RunResult]") -> Outcome:
    error = future.exception()
    if error is not None:
        return Outcome(arm, seed, None, f"{type(error).__name__}: {error}")
    return Outcome(arm, seed, future.result(), None)


def write_results(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write results.json and results.csv, a row per finished run."""
    rows = [{"arm": each.arm, **asdict(each.result)} for each in outcomes if each.result is not None]
    write_json(folder / "results.json", rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["arm", *(field.name for field in fields(RunResult))], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", text.getvalue())


def finished(outcomes: Sequence[Outcome]) -> dict[str, dict[int, RunResult]]:
    """Results of the runs that did not fail, by arm and seed."""
    found: dict[str, dict[int, RunResult]] = {outcome.arm: {} for outcome in outcomes}
    for outcome in outcomes:
        if outcome.result is not None:
            found[outcome.arm][outcome.seed] = outcome.result
    return found
