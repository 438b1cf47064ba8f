"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 60 000 and 10 000 images of 28x28 in 10 classes."""

import functools
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smoothout.train.config import Data
from smoothout.train.data.images import PadCropFlip, normaliser
from smoothout.train.data.splits import DataSet, Resident, as_is, cut_holdout

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def load(settings: Data, seed: int) -> DataSet:
    """Read the four files of the data set, with the crops and flips that the original gives MNIST."""
    folder = settings.data_dir
    train = Resident(_read(folder, "train-images-idx3-ubyte"), _read(folder, "train-labels-idx1-ubyte"))
    test = Resident(_read(folder, "t10k-images-idx3-ubyte"), _read(folder, "t10k-labels-idx1-ubyte"))
    kept, held_out = cut_holdout(len(train), settings.holdout, seed)
    return DataSet(
        train=train.take(kept),
        holdout=train.take(held_out),
        test=test,
        input_shape=(1, 28, 28),
        classes=10,
        normalise=normaliser((0.5,), (0.5,)),
        augment=PadCropFlip(pad=2, fill=0) if settings.augment else as_is,
    )


@functools.lru_cache(maxsize=4)
def _read(data_dir: Path, name: str) -> Tensor:
    """An IDX file of bytes, packed or not: images as (n, 1, 28, 28), labels as int64 (n,)."""
    places = [data_dir, data_dir / "fashion_mnist", data_dir / "FashionMNIST" / "raw", DEBIAN]
    candidates = [place / file for place in places for file in (name, f"{name}.gz")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"Fashion-MNIST: no file {name} or {name}.gz in {', '.join(map(str, places))}. On Debian install "
            f"the package dataset-fashion-mnist; elsewhere run torchvision.datasets.FashionMNIST"
            f"({str(data_dir)!r}, download=True) once, or give the files' folder by --data-dir."
        )
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Header: two zero bytes, the type (8: bytes), the number of dimensions, and each length in 32 bits.
    dimensions = raw[3] if len(raw) > 4 else 0
    lengths = tuple(np.frombuffer(raw, ">i4", dimensions, offset=4).tolist()) if dimensions in (1, 3) else ()
    start = 4 + 4 * dimensions
    if raw[:3] != b"\0\0\x08" or len(raw) - start != np.prod(lengths):
        raise ValueError(f"{path} is no IDX file of bytes, or cut short ({len(raw)} bytes). Fetch it again.")
    values = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(lengths).copy())
    return values.unsqueeze(1) if dimensions == 3 else values.long()
