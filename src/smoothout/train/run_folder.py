"""The folder of a run: config.json, process.json, log.txt, metrics.csv, result.json and checkpoints/."""

import shutil
from pathlib import Path

from smoothout.results.comparisons import is_comparison
from smoothout.results.files import holds, write_json, write_text
from smoothout.results.runs import EpochMetrics, RunResult, read_metrics, write_metrics
from smoothout.train.config import Settings


class RunFolder:
    """Paths and files of one run; made by :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, settings: Settings, *, overwrite: bool = False) -> "RunFolder":
        """Start a new run.

        Raises:
            FileExistsError: If the folder exists, unless ``overwrite``; then what is in it is deleted, provided
                that it is a run's.
        """
        cls.refuse_existing(path, overwrite=overwrite)
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        write_text(path / "config.json", settings.to_json())
        return cls(path)

    @staticmethod
    def refuse_existing(path: Path, *, overwrite: bool) -> None:
        """Raise where :meth:`create` would, before anything is done."""
        if path.exists():
            if not overwrite:
                raise FileExistsError(f"{path} exists. Use --resume, --overwrite, or another --name.")
            refuse_foreign(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Go on with a run.

        Raises:
            FileNotFoundError: If there is nothing to go on with.
        """
        if not (path / "config.json").is_file() or (path / "state.pt").is_file():
            raise FileNotFoundError(
                f"{path} holds no run; expected a folder with config.json that is no checkpoint's. Start it without "
                f"--resume."
            )
        return cls(path)

    @property
    def settings(self) -> Settings:
        """The settings that the run was started with."""
        return Settings.from_json((self.path / "config.json").read_text(encoding="utf-8"))

    def checkpoint(self, name: str) -> Path:
        """Folder of the checkpoint "initial", "last" or "best"."""
        return self.path / "checkpoints" / name

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def metrics(self) -> list[EpochMetrics]:
        """The rows written so far."""
        path = self.path / "metrics.csv"
        return read_metrics(path) if path.is_file() else []

    def write_metrics(self, rows: list[EpochMetrics]) -> None:
        """Replace the rows."""
        write_metrics(self.path / "metrics.csv", rows)

    def write_result(self, result: RunResult) -> None:
        """Say that the run is finished and how."""
        write_json(self.path / "result.json", result)


def refuse_foreign(path: Path) -> None:
    """Raise unless a folder is a run's, a comparison's, or empty: nothing else is ever deleted."""
    if not path.is_dir() or (any(path.iterdir()) and not (holds(path / "config.json", "noise") or is_comparison(path))):
        raise FileExistsError(f"{path} was not made by smoothout; it is not overwritten. Use another --name.")
