"""Any tree of images ``train/CLASS/*`` with ``val/CLASS/*`` or ``test/CLASS/*``.

Of ``val/`` and ``test/`` the one that is there is the test split; where both are, ``val/`` is the hold-out, however
many images it has, unless a share of 0 says that there shall be none.
Images of one size that fit in memory are kept there and cropped after padding; others are read by worker
processes, random resized crops in training, resize and centre crop in evaluation.
"""

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder

from smoothout.train.config import Data
from smoothout.train.data.images import GREY, IMAGENET_MEAN, IMAGENET_STD, PadCropFlip, normaliser, resize
from smoothout.train.data.splits import DataSet, Resident, Streamed, as_is, cut_holdout, given_holdout

RESIDENT_BYTES = 1 << 30
STREAMED_SIDE = 224


def load(settings: Data, seed: int) -> DataSet:
    """Find the splits of a tree and load or open them."""
    root = settings.folder.resolve()
    names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if "train" not in names or len(names) < 2:
        raise FileNotFoundError(
            f"imagefolder: {root} has {', '.join(names) or 'none'} of train, val and test; expected "
            f"train/CLASS/* and val/CLASS/* or test/CLASS/*. Give the folder that holds them by --data-dir."
        )
    folders = {name: scan(root / name) for name in names}
    same_classes("imagefolder", folders)
    splits, shape, augment = _open(settings, folders)
    train, test = splits["train"], splits["test" if "test" in splits else "val"]
    if len(splits) == 3:
        kept, held_out = train, given_holdout(splits["val"], settings.holdout)
    else:
        indices = cut_holdout(len(train), settings.holdout, seed)
        kept, held_out = train.take(indices[0]), train.take(indices[1])
    normalise = normaliser(IMAGENET_MEAN, IMAGENET_STD)
    return DataSet(kept, held_out, test, shape, len(folders["train"].classes), normalise, augment)


@functools.lru_cache(maxsize=3)
def scan(folder: Path) -> Any:
    """The files and classes of a folder, listed once in a process: runs of several seeds share them."""
    return ImageFolder(str(folder))


def same_classes(dataset: str, folders: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless all folders have the classes of "train"."""
    for folder in folders.values():
        different = set(folder.classes) ^ set(folders["train"].classes)
        if different:
            raise ValueError(
                f"{dataset}: the classes of {folder.root} and {folders['train'].root} differ by "
                f"{', '.join(sorted(different)[:5])}; expected the same sub-folders in both. "
                f"Add what is missing, or remove what is too many."
            )


def stream(settings: Data, folder: Any) -> Streamed:
    """A split whose images are read from their files each time, as bytes (3, side, side)."""
    side = settings.input_size or STREAMED_SIDE
    evaluate = transforms.Compose(
        [transforms.Resize(side * 256 // 224), transforms.CenterCrop(side), transforms.PILToTensor()]
    )
    learn = transforms.Compose(
        [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    return Streamed(
        folder, torch.arange(len(folder)), evaluate, learn if settings.augment else evaluate, workers=settings.workers
    )


def _open(settings: Data, folders: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...], Any]:
    """The splits, the shape of a sample, and the augmentation of batches."""
    resident = _all_resident(tuple(Path(folder.root) for folder in folders.values()))
    if resident is None:
        side = settings.input_size or STREAMED_SIDE
        return {name: stream(settings, folder) for name, folder in folders.items()}, (3, side, side), as_is
    splits = {name: resize(split, settings.input_size) for name, split in zip(folders, resident, strict=True)}
    shape = tuple(splits["train"].inputs.shape[1:])
    pad = PadCropFlip(4 if shape[1] <= 64 else shape[1] // 8, GREY)
    return splits, shape, pad if settings.augment else as_is


@functools.lru_cache(maxsize=1)
def _all_resident(folders: tuple[Path, ...]) -> tuple[Resident, ...] | None:
    """Every folder in memory, None if images differ in size or are too many."""
    found = [scan(folder) for folder in folders]
    with Image.open(found[0].samples[0][0]) as first:
        size = first.size
    if 3 * size[0] * size[1] * sum(len(folder) for folder in found) > RESIDENT_BYTES:
        return None
    with ThreadPoolExecutor() as pool:
        resident = [_decode(folder, size, pool) for folder in found]
    return None if None in resident else tuple(split for split in resident if split is not None)


def _decode(folder: Any, size: tuple[int, int], pool: ThreadPoolExecutor) -> Resident | None:
    """All images of a folder as bytes (n, 3, H, W), None if one has another size."""
    images = torch.empty((len(folder), 3, size[1], size[0]), dtype=torch.uint8)

    def read(place: int) -> bool:
        with Image.open(folder.samples[place][0]) as image:
            if image.size != size:
                return False
            images[place] = _bytes(image)
        return True

    if not all(pool.map(read, range(len(folder)), chunksize=256)):
        return None
    return Resident(images, torch.tensor(folder.targets))


def _bytes(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
