"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50 000 training and 10 000 test images of 3x32x32.

Crops, flips and normalisation are those of the original program. The files are Python pickles, which can run any
code: each is read once, and only bytes with the published checksum are unpickled.
"""

import functools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from smoothout.train.config import Data
from smoothout.train.data.files import locate, read_checked
from smoothout.train.data.images import GREY, IMAGENET_MEAN, IMAGENET_STD, PadCropFlip, image_set, normaliser
from smoothout.train.data.splits import DataSet, Resident


def load(settings: Data, seed: int) -> DataSet:
    """Read the files of either set as torchvision unpacks them."""
    # Only its tables are used: names of files with their checksums.
    published: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[settings.dataset]
    folders = (settings.folder / settings.dataset, settings.folder)
    files = published.train_list + published.test_list
    place = locate(settings, [folder / published.base_folder for folder in folders], [name for name, _ in files])
    train, test = _read(place, *(tuple(map(tuple, part)) for part in (published.train_list, published.test_list)))
    classes = 10 if settings.dataset == "cifar10" else 100
    normalise = normaliser(IMAGENET_MEAN, IMAGENET_STD)
    return image_set(settings, seed, train, test, classes, normalise, PadCropFlip(pad=4, fill=GREY))


@functools.lru_cache(maxsize=1)
def _read(folder: Path, *parts: Sequence[tuple[str, str]]) -> tuple[Resident, ...]:
    # All are checked before the first is unpickled.
    raw = [[read_checked(folder / name, md5) for name, md5 in part] for part in parts]
    return tuple(map(_unpickle, raw))


def _unpickle(files: Sequence[bytes]) -> Resident:
    # Written by Python 2, whose strings are bytes.
    batches = [pickle.loads(file, encoding="bytes") for file in files]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = [label for batch in batches for label in batch.get(b"labels", batch.get(b"fine_labels"))]
    return Resident(torch.from_numpy(images), torch.tensor(labels))
