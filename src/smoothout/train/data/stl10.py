"""STL-10 (Coates et al. 2011): 5000 labelled training and 8000 test images of 3x96x96 in 10 classes.

Padding is CIFAR's in proportion. The original program names this set but never could load it.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets import STL10

from smoothout.train.config import Data
from smoothout.train.data.files import locate, read_checked
from smoothout.train.data.images import GREY, IMAGENET_MEAN, IMAGENET_STD, PadCropFlip, image_set, normaliser
from smoothout.train.data.splits import DataSet, Resident


def load(settings: Data, seed: int) -> DataSet:
    """Read the labelled files as torchvision unpacks them; the 100 000 unlabelled images need not be there."""
    # Only its tables are used: names of files with their checksums.
    published: Any = STL10
    parts = published.train_list[:2], published.test_list
    places = [folder / published.base_folder for folder in (settings.folder / "stl10", settings.folder)]
    place = locate(settings, places, [name for part in parts for name, _ in part])
    train, test = (_read(place, *map(tuple, part)) for part in parts)
    normalise = normaliser(IMAGENET_MEAN, IMAGENET_STD)
    return image_set(settings, seed, train, test, 10, normalise, PadCropFlip(pad=12, fill=GREY))


@functools.lru_cache(maxsize=2)
def _read(folder: Path, images: tuple[str, str], labels: tuple[str, str]) -> Resident:
    pixels = np.frombuffer(read_checked(folder / images[0], images[1]), np.uint8).reshape(-1, 3, 96, 96)
    targets = np.frombuffer(read_checked(folder / labels[0], labels[1]), np.uint8)
    # Columns come before rows in the file, and classes count from 1.
    upright = np.ascontiguousarray(pixels.transpose(0, 1, 3, 2))
    return Resident(torch.from_numpy(upright), torch.from_numpy(targets.astype(np.int64) - 1))
