"""Arguments of the commands, made from dataclasses by tyro."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], command: str, description: str, default: T | None = None) -> T:
    """Read arguments into a dataclass; on a mistake tyro prints what it expected and exits with status 2."""
    options: dict[str, Any] = {} if default is None else {"default": default}
    parsed: T = tyro.cli(
        kind,
        args=list(arguments),
        prog=f"smoothout {command}",
        description=description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        **options,
    )
    return parsed


@dataclass(frozen=True)
class Replacements:
    """What replaces the settings that a checkpoint names."""

    model: str | None = None
    """Replaces the model that the checkpoint names; needed if that is the user's code."""
    dataset: str | None = None
    """Replaces the dataset that the checkpoint names; needed for the user's code and for the original's files."""
    data_dir: Path | None = None
    """Replaces the data folder that the checkpoint names."""
    model_config: str | None = None
    """Replaces the model's further arguments, such as "{'depth': 20}"."""
    num_classes: int | None = None
    """Replaces the number of outputs."""
    input_size: int | None = None
    """Replaces the side in pixels that images are brought to."""
    download: bool = False
    """Fetch the data set if it is not there."""

    @property
    def given(self) -> dict[str, Any]:
        """What was given, by the names of the settings."""
        return {name: value for name, value in vars(self).items() if value not in (None, False)}
