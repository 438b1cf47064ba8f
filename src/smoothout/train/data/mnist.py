"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): IDX files of 28x28 images.

60 000 training and 10 000 test images each, in 10 classes. Both get the crops and flips that the original
program gives MNIST.
"""

import functools
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smoothout.train.config import Data
from smoothout.train.data.files import locate
from smoothout.train.data.images import PadCropFlip, image_set, normaliser
from smoothout.train.data.splits import DataSet, Resident

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


def load(settings: Data, seed: int) -> DataSet:
    """Read the four files, packed or not, from the folders where torchvision, Debian or a user puts them."""
    folder, name = settings.folder, settings.dataset
    raw = Path("MNIST" if name == "mnist" else "FashionMNIST") / "raw"
    # The files of both have the same names: the more telling folders go first.
    places = [folder / name / raw, folder / name, folder / raw, folder]
    remedy = ""
    if name == "fashion_mnist":
        places.append(DEBIAN)
        remedy = " On Debian the package dataset-fashion-mnist has them."
    place = locate(settings, places, FILES, packed=True, remedy=remedy)
    train, test = _read(place)
    return image_set(settings, seed, train, test, 10, normaliser((0.5,), (0.5,)), PadCropFlip(pad=2, fill=0))


@functools.lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[Resident, Resident]:
    images, labels, test_images, test_labels = (_read_idx(folder / name) for name in FILES)
    return Resident(images, labels), Resident(test_images, test_labels)


def _read_idx(path: Path) -> Tensor:
    """An IDX file of bytes: images as (n, 1, H, W), labels as int64 (n,)."""
    if not path.is_file():
        path = path.with_name(f"{path.name}.gz")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Header: two zero bytes, the type (8: bytes), the number of dimensions, and each length in 32 bits.
    dimensions = 3 if "idx3" in path.name else 1
    start = 4 + 4 * dimensions
    lengths = tuple(np.frombuffer(raw[4:start], ">i4").tolist()) if len(raw) >= start else ()
    if raw[:4] != bytes((0, 0, 8, dimensions)) or len(raw) - start != np.prod(lengths):
        raise ValueError(
            f"{path} is no IDX file of bytes in {dimensions} dimensions, or cut short ({len(raw)} bytes). Delete it, "
            f"and fetch it again by --download."
        )
    values = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(lengths).copy())
    return values.unsqueeze(1) if dimensions == 3 else values.long()
