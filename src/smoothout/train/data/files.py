"""Find, check and fetch the files of published data sets."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from smoothout.train.config import Data

#: The classes of torchvision.datasets that fetch each data set.
DOWNLOADABLE = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "fashion_mnist": "FashionMNIST",
    "mnist": "MNIST",
    "stl10": "STL10",
}


def locate(
    settings: Data, places: Sequence[Path], names: Sequence[str], *, packed: bool = False, remedy: str = ""
) -> Path:
    """The first of the places that holds all files; fetches the data set if there is none and that is wished.

    Args:
        settings: Which data set, and whether to download it.
        places: Folders.
        names: Of the files.
        packed: Whether NAME.gz will do.
        remedy: One more way to come by the files.
    """
    suffixes = ("", ".gz") if packed else ("",)

    def complete(place: Path) -> bool:
        return all(any((place / f"{name}{suffix}").is_file() for suffix in suffixes) for name in names)

    found = next(filter(complete, places), None)
    if found is None and settings.download:
        _fetch(settings)
        found = next(filter(complete, places), None)
    if found is None:
        raise FileNotFoundError(
            f"{settings.dataset}: expected the files {', '.join(names)}{' (or .gz)' if packed else ''} in one of the "
            f"folders {', '.join(map(str, places))}. Fetch them by --download, or name their folder by "
            f"--data-dir.{remedy}"
        )
    return found.resolve()  # readers keep what they read by it, and a process may change its folder


def _fetch(settings: Data) -> None:
    import torchvision.datasets

    try:
        # Checks what it fetches against published checksums before it opens anything.
        getattr(torchvision.datasets, DOWNLOADABLE[settings.dataset])(str(settings.folder), download=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"{settings.dataset} could not be fetched into {settings.folder}: {error} "
            f"Check the network and the folder, or put the files there by hand."
        ) from error


def read_checked(path: Path, md5: str) -> bytes:
    """The bytes of a file with this checksum; nothing is made of the bytes of any other file."""
    raw = path.read_bytes()
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{path} has the MD5 checksum {found}; expected {md5}, that of the published file. Nothing of it was used. "
            f"Delete it, and fetch it again by --download."
        )
    return raw
