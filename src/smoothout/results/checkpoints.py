"""Where the files of a checkpoint are, and whether its weights are those that something was measured of."""

import hashlib
from pathlib import Path

WEIGHTS, STATE = "model.safetensors", "state.pt"


def place_of(path: Path) -> Path | None:
    """The checkpoint that a path names: its folder, a run's, whose best one is taken, or a file of the original."""
    if path.is_file():
        return path
    for folder in (path, path / "checkpoints" / "best"):
        # A save that is under way, or was cut off, may have moved the old one aside; a reader moves nothing.
        for place in (folder, folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")):
            if (place / STATE).is_file():
                return place
    return None


def weights_digest(checkpoint: Path) -> str | None:
    """SHA-256 of the file with the weights; None if there is none.

    Args:
        checkpoint: As for :func:`place_of`.
    """
    place = place_of(checkpoint)
    if place is None:
        return None
    try:
        with (place if place.is_file() else place / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
