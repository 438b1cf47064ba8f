"""Folders that a report is made of: runs, comparisons, measures of sharpness and landscapes."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from smoothout.results.checkpoints import weights_digest
from smoothout.results.comparisons import is_comparison, read_comparison
from smoothout.results.files import holds
from smoothout.results.landscape import MeasuredLandscape, read_landscape
from smoothout.results.processes import Process, read_process, state_of
from smoothout.results.runs import EpochMetrics, RunResult, read_metrics, read_run
from smoothout.results.sharpness import Measured, read_sharpness

#: What a file that is not ours, or half of ours, raises when it is read.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error)


@dataclass(frozen=True)
class RunFound:
    """A run's folder, as far as it can be read.

    Attributes:
        path: As it was named.
        arm: Of the comparison that it belongs to; None for a run of its own.
        against: The arm that this arm is compared with.
        seed: Of the run.
        settings: Flat, without the seed.
        state: As :func:`state_of` gives it, or "waiting" for a run that has not begun.
        process: How it came about; None where that is not known.
        rows: Finished epochs.
        result: Of a finished run.
    """

    path: Path
    arm: str | None
    against: str | None
    seed: int
    settings: Mapping[str, Any]
    state: str
    process: Process | None
    rows: tuple[EpochMetrics, ...]
    result: RunResult | None

    @property
    def note(self) -> str:
        """What the state means, in words; empty for a finished run."""
        stands = f"after epoch {len(self.rows)} of {self.settings.get('epochs')}"
        error = self.process.error if self.process is not None else None
        notes = {
            "finished": "",
            "waiting": "has not begun",
            "running": f"still training, {stands}",
            "failed": f"failed {stands}: {error or 'no reason is kept'}",
            "interrupted": f"was interrupted {stands}; --resume goes on with it",
            "vanished": f"its process is gone without a word, {stands}; --resume goes on with it",
        }
        return notes.get(self.state, f"unfinished, {stands}; how its process fared is not known")

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of the weights of its checkpoints, with the checkpoint's name."""
        found = ((weights_digest(self.path / "checkpoints" / name), name) for name in ("last", "best", "initial"))
        return {digest: name for digest, name in found if digest is not None}  # of equal ones the best


@dataclass
class Found:
    """All that was found, and what could not be read."""

    runs: list[RunFound] = field(default_factory=list)
    sharpness: list[Measured] = field(default_factory=list)
    landscapes: list[MeasuredLandscape] = field(default_factory=list)
    processes: dict[Path, Process] = field(default_factory=dict)  # of comparisons
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, reason: str) -> None:
        """Say why something is not shown, once."""
        if reason not in self.left_out:
            self.left_out.append(reason)

    @cached_property
    def checkpoints(self) -> dict[str, tuple[RunFound, str]]:
        """Runs and names of checkpoints by the digest of their weights."""
        return {digest: (run, name) for run in self.runs for digest, name in run.digests.items()}


def search(paths: Sequence[Path]) -> Found:
    """Read what the paths name, and the measures and landscapes inside runs and comparisons.

    Raises:
        FileNotFoundError: If a path names nothing of ours.
        ValueError: If there is no run among them, or a path is named twice.
    """
    found = Found()
    for index, path in enumerate(paths):
        if path.resolve() in (other.resolve() for other in paths[:index]):
            raise ValueError(f"{path} is named twice; expected each folder once.")
        _read(path, found)
    if not found.runs:
        reasons = f" {' '.join(found.left_out)}" if found.left_out else ""
        raise ValueError(
            f"no run is among {', '.join(map(str, paths))}; expected folders that smoothout train or compare wrote, "
            f"such as runs/NAME.{reasons}"
        )
    return found


def _read(path: Path, found: Found) -> None:
    if is_comparison(path):
        _read_comparison(path, found)
    elif holds(path / "config.json", "noise"):
        _read_run(path, found)
    elif (path / "config.json").is_file() or (path / "comparison.json").is_file():
        found.leave_out(f"{path} is left out: its settings cannot be read, so it is half written or not ours.")
        return
    elif not _read_measures(path, found):
        raise FileNotFoundError(
            f"{path} holds no run, comparison, sharpness or landscape; expected a folder that smoothout wrote, such "
            f"as runs/NAME."
        )
    if path.is_dir():
        for inner in sorted(path.iterdir()):
            _read_measures(inner, found)


def _read_measures(path: Path, found: Found) -> bool:
    """Whether a folder holds measures or a landscape, which are read."""
    readers = (("sharpness.json", _add_sharpness), ("landscape.json", _add_landscape))
    here = [(path / name, reader) for name, reader in readers if (path / name).is_file()]
    for file, reader in here:
        try:
            reader(file, found)
        except UNREADABLE as error:
            found.leave_out(f"{file} is left out: {error}")
    return bool(here)


def _add_sharpness(file: Path, found: Found) -> None:
    found.sharpness += read_sharpness(file)


def _add_landscape(file: Path, found: Found) -> None:
    found.landscapes.append(read_landscape(file.parent))


def _read_comparison(path: Path, found: Found) -> None:
    try:
        comparison = read_comparison(path)
    except UNREADABLE as error:
        found.leave_out(f"{path} is left out: {error}")
        return
    process = _or_none(read_process, path, found)
    if process is not None:
        found.processes[path] = process
    for name, arm in comparison.arms.items():
        for seed in comparison.seeds:
            folder = path / comparison.folder(name, seed)
            if (folder / "config.json").is_file():
                _read_run(folder, found, name, arm.against)
            else:
                settings = flat(arm.settings)
                found.runs.append(RunFound(folder, name, arm.against, seed, settings, "waiting", None, (), None))


def _read_run(path: Path, found: Found, arm: str | None = None, against: str | None = None) -> None:
    """Read a run; a file that cannot be read is named, and the rest is shown."""
    try:
        settings = flat(json.loads((path / "config.json").read_text(encoding="utf-8")))
        seed = int(settings.pop("seed"))
    except UNREADABLE as error:
        found.leave_out(f"{path} is left out: config.json cannot be read ({error}).")
        return
    process = _or_none(read_process, path, found)
    rows = _or_none(read_metrics, path / "metrics.csv", found) or []
    result = _or_none(read_run, path / "result.json", found)
    state = _or_none(state_of, path, found) or "unknown"
    if state == "finished" and result is None:
        state = "unknown"  # result.json is there and cannot be read
    found.runs.append(RunFound(path, arm, against, seed, settings, state, process, tuple(rows), result))


def _or_none(read: Any, path: Path, found: Found) -> Any:
    """What is read; None where there is nothing, or nothing that can be read, which is said."""
    if not path.exists():
        return None
    try:
        return read(path)
    except UNREADABLE as error:
        found.leave_out(f"{path} cannot be read: {type(error).__name__}: {error}")
        return None


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, whatever their group."""
    groups = (group for name, group in settings.items() if name != "schema")
    return {name: value for group in groups for name, value in group.items()}


def place(found: Found, checkpoint: Path, digest: str | None) -> tuple[RunFound, str] | str:
    """The run that a checkpoint belongs to and the checkpoint's name there, or why there is none.

    Weights tell, wherever the folder was when they were measured; without their digest the path does.
    """
    reason = f"{checkpoint} is of no run that the report is about"
    for run in found.runs:
        if checkpoint.resolve().is_relative_to(run.path.resolve()):
            if digest is None:
                return run, checkpoint.name if checkpoint.parent.name == "checkpoints" else "best"
            if digest in run.digests:
                return run, run.digests[digest]
            reason = f"{checkpoint} was trained again since it was measured"
    return found.checkpoints.get(digest or "", reason)


def origins(found: Found) -> Iterator[tuple[Path, Process]]:
    """Comparisons and runs of their own whose making is known."""
    yield from found.processes.items()
    known = {path.resolve() for path in found.processes}
    for run in found.runs:
        if run.process is not None and known.isdisjoint(run.path.resolve().parents):
            yield run.path, run.process


def now() -> str:
    """The time, UTC."""
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each once, in order."""
    return list(dict.fromkeys(values))
