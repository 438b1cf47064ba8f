"""Arguments of the commands, made from dataclasses by tyro."""

from collections.abc import Sequence
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
