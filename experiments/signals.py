"""MNIST-1D with 10 000 held-out samples in place of 2000, by which trials a point apart can be told apart."""

from pathlib import Path
from typing import Any

from smoothout.train.config import Data
from smoothout.train.data import mnist1d

HOLDOUT_SAMPLES = 10_000


def signals(data_dir: Path) -> dict[str, Any]:
    """The published training samples, and the test samples and the generator of ``--dataset mnist1d``."""
    usual = mnist1d.load(Data(data_dir=data_dir), 0)
    held_out = mnist1d.samples(data_dir / "mnist1d", mnist1d.HOLDOUT_SEED, HOLDOUT_SAMPLES, HOLDOUT_SAMPLES)
    splits = {"train": usual.train, "holdout": held_out, "test": usual.test}
    return {name: (split.inputs, split.targets) for name, split in splits.items()}
