"""Any tree of images ``train/CLASS/*`` with ``val/CLASS/*`` or ``test/CLASS/*``.

Of ``val/`` and ``test/`` the one that is there is the test split; where both are, ``val/`` is the hold-out.
Images of one size that fit in memory are kept there and cropped after padding; others are read by worker
processes, random resized crops in training, resize and centre crop in evaluation.
"""

import functools
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
from smoothout.train.data.images import IMAGENET_MEAN, IMAGENET_STD, PadCropFlip, normaliser
from smoothout.train.data.splits import DataSet, Resident, Streamed, as_is, cut_holdout

RESIDENT_BYTES = 1 << 30
GREY = 127


def load(settings: Data, seed: int) -> DataSet:
    """Find the splits of a tree and load or open them."""
    names = [name for name in ("train", "val", "test") if (settings.data_dir / name).is_dir()]
    if "train" not in names or len(names) < 2:
        raise FileNotFoundError(
            f"imagefolder: {settings.data_dir} has {', '.join(names) or 'none'} of train, val and test; expected "
            f"train/CLASS/* and val/CLASS/* or test/CLASS/*. Give the folder that holds them by --data-dir."
        )
    folders = {name: _scan(settings.data_dir / name) for name in names}
    _same_classes(settings.data_dir, folders)
    resident = _all_resident(tuple(settings.data_dir / name for name in names))
    splits: dict[str, Resident | Streamed]
    if resident is not None:
        splits = dict(zip(names, resident, strict=True))
        shape = tuple(resident[0].inputs.shape[1:])
        pad = PadCropFlip(4 if shape[1] <= 64 else shape[1] // 8, GREY)
        augment = pad if settings.augment else as_is
    else:
        splits = {name: _stream(settings, name) for name in names}
        shape, augment = (3, settings.image_size, settings.image_size), as_is
    test = splits["test" if "test" in splits else "val"]
    train = splits["train"]
    if len(splits) == 3:
        kept, held_out = train, splits["val"]
    else:
        indices = cut_holdout(len(train), settings.holdout, seed)
        kept, held_out = train.take(indices[0]), train.take(indices[1])
    normalise = normaliser(IMAGENET_MEAN, IMAGENET_STD)
    return DataSet(kept, held_out, test, shape, len(folders["train"].classes), normalise, augment)


def _scan(folder: Path, transform: Any = None) -> Any:
    return ImageFolder(str(folder), transform)


def _same_classes(root: Path, folders: dict[str, Any]) -> None:
    for name, folder in folders.items():
        different = set(folder.classes) ^ set(folders["train"].classes)
        if different:
            raise ValueError(
                f"imagefolder: the classes of {root / name} and {root / 'train'} differ by "
                f"{', '.join(sorted(different)[:5])}; expected the same sub-folders in both."
            )


@functools.lru_cache(maxsize=1)
def _all_resident(folders: tuple[Path, ...]) -> tuple[Resident, ...] | None:
    """Every folder in memory, None if images differ in size or are too many."""
    found = [_scan(folder) for folder in folders]
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


def _stream(settings: Data, name: str) -> Streamed:
    side = settings.image_size
    evaluate = transforms.Compose(
        [transforms.Resize(side * 256 // 224), transforms.CenterCrop(side), transforms.PILToTensor()]
    )
    learn = transforms.Compose(
        [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    plain = _scan(settings.data_dir / name, evaluate)
    augmented = _scan(settings.data_dir / name, learn if settings.augment else evaluate)
    return Streamed(plain, augmented, settings.workers, torch.arange(len(plain)))
