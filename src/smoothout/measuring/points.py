"""The points of a landscape in a file, finished ones and others, so that an interrupted command goes on."""

import math
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smoothout.results.runs import Risk

#: Seconds between writes.
EVERY = 2.0


class KeptPoints:
    """Loss and error of each split at each point; ``points.npz``, and one file more for each shard.

    Points that any file of the folder holds count as finished, so shards need no other merge than a start without
    ``shard``, which goes on with what is missing and writes it all together.

    Args:
        folder: Of the landscape.
        key: What the numbers depend on; files of another key are refused.
        splits: Names of the splits.
        count: Number of points.
        shard: (i, n), from 1: measure every n-th point only, and write a file of its own.

    Raises:
        ValueError: If the folder holds points of another key.
    """

    def __init__(
        self, folder: Path, key: str, splits: Sequence[str], count: int, shard: tuple[int, int] | None = None
    ) -> None:
        name = "points.npz" if shard is None else f"points-{shard[0]}of{shard[1]}.npz"
        self._path, self._key, self._splits = folder / name, key, tuple(splits)
        shape = (len(self._splits), count)
        self._finished = np.zeros(shape, dtype=bool)
        self._losses, self._errors = np.full(shape, math.nan), np.full(shape, math.nan)
        self._samples = np.zeros(len(self._splits), dtype=np.int64)
        self._mine = np.ones(count, dtype=bool) if shard is None else np.arange(count) % shard[1] == shard[0] - 1
        self._began = self._written = time.monotonic()
        self._before = 0.0
        for path in sorted(folder.glob("points*.npz")):
            self._take(path)

    def _take(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in ("key", "finished", "losses", "errors1", "samples", "seconds")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} cannot be read ({error}); expected what this command wrote. Move it away, or use another "
                f"--name."
            ) from error
        if str(stored["key"]) != self._key:
            raise ValueError(
                f"{path} holds points of another landscape: other weights, samples, axes, grid or versions. "
                f"Use another --name."
            )
        new = stored["finished"] & ~self._finished
        self._losses[new], self._errors[new] = stored["losses"][new], stored["errors1"][new]
        self._finished |= new
        self._samples = np.maximum(self._samples, stored["samples"])
        if path == self._path:
            self._before = float(stored["seconds"])  # those of other shards are in their own files

    def missing(self, split: str) -> list[int]:
        """Indices of the points that are still to be measured, in order."""
        row = self._splits.index(split)
        return [int(index) for index in np.flatnonzero(self._mine & ~self._finished[row])]

    @property
    def wanted(self) -> int:
        """Number of measurements: points of this shard, times splits."""
        return int(self._mine.sum()) * len(self._splits)

    @property
    def seconds(self) -> float:
        """Wall time of all starts that wrote this file."""
        return self._before + time.monotonic() - self._began

    @property
    def complete(self) -> bool:
        """Whether every point of every split is finished, whoever measured it."""
        return bool(self._finished.all())

    def add(self, split: str, indices: Sequence[int], risks: Sequence[Risk]) -> None:
        """Take measurements in; writes now and then."""
        row = self._splits.index(split)
        for index, risk in zip(indices, risks, strict=True):
            self._losses[row, index], self._errors[row, index] = risk.loss, risk.error1
            self._finished[row, index] = True
            self._samples[row] = risk.samples
        if time.monotonic() - self._written > EVERY:
            self.write()

    def write(self) -> None:
        """Write what is finished; a reader finds the old file or the new."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name("new-" + self._path.name)
        with new.open("wb") as file:
            np.savez_compressed(
                file,
                key=np.array(self._key),
                finished=self._finished,
                losses=self._losses,
                errors1=self._errors,
                samples=self._samples,
                seconds=np.array(self.seconds),
            )
        new.replace(self._path)
        self._written = time.monotonic()

    def risks(self, split: str) -> list[Risk | None]:
        """Of every point, None where it is not finished."""
        row = self._splits.index(split)
        samples = int(self._samples[row])
        return [
            Risk(float(loss), float(error), math.nan, samples) if done else None
            for loss, error, done in zip(self._losses[row], self._errors[row], self._finished[row], strict=True)
        ]
