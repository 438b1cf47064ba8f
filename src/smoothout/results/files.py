"""Files that are written whole or not at all."""

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old text or the new, never a part."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def write_json(path: Path, record: Any) -> None:
    """Write a dataclass, or plain lists and dicts of them, as JSON."""
    write_text(path, json.dumps(record, default=_as_plain, indent=2) + "\n")


def holds(path: Path, key: str) -> bool:
    """Whether a file is a JSON object with our key; other programs write files of our names, too."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and key in content


def _as_plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")
