"""MNIST-1D (Greydanus & Kobak 2020, arXiv 2011.14439): signals of 40 points in 10 classes, made by a package.

4000 training samples as published (seed 42), and of the same generator with other seeds a hold-out and
10 000 test samples, so that a difference of half a point can be seen. What was made is kept in the data folder.
"""

import importlib.metadata
import os
import random
from pathlib import Path

import numpy as np
import torch

from smoothout.train.config import Data
from smoothout.train.data.splits import DataSet, Resident

TRAIN_SAMPLES, MADE_SAMPLES, TRAIN_SEED = 4000, 5000, 42
HOLDOUT_SHARE, HOLDOUT_SEED = 0.5, 4242
TEST_SAMPLES, TEST_SEED = 10_000, 777


def load(settings: Data, _seed: int) -> DataSet:
    """Load or make the three splits; they do not depend on the run's seed."""
    share = HOLDOUT_SHARE if settings.holdout is None else settings.holdout
    folder = settings.folder / "mnist1d"
    # The published set is the first 4000 of 5000 samples made.
    train = samples(folder, TRAIN_SEED, MADE_SAMPLES, TRAIN_SAMPLES)
    return DataSet(
        train=train,
        holdout=_holdout(folder, share) if share > 0 else train.take(torch.arange(0)),
        test=samples(folder, TEST_SEED, TEST_SAMPLES, TEST_SAMPLES),
        input_shape=tuple(train.inputs.shape[1:]),
        classes=10,
    )


def _holdout(folder: Path, share: float) -> Resident:
    count = round(TRAIN_SAMPLES * share)
    if count == 0:
        raise ValueError(
            f"holdout={share} of {TRAIN_SAMPLES} training samples is 0; expected at least one. "
            f"Give a larger --holdout, or 0 for none."
        )
    return samples(folder, HOLDOUT_SEED, count, count)


def samples(folder: Path, seed: int, count: int, keep: int) -> Resident:
    """The first ``keep`` of ``count`` samples made with a seed, from the folder if they are there."""
    version = importlib.metadata.version("mnist1d")
    path = folder / f"version{version}-seed{seed}-count{count}.npz"
    if not path.is_file():
        inputs, targets = _generate(seed, count)
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes may make the same file; each writes its own and the last one stays.
        new = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(new, inputs=inputs, targets=targets)
        new.replace(path)
    with np.load(path) as arrays:
        return Resident(torch.from_numpy(arrays["inputs"][:keep]), torch.from_numpy(arrays["targets"][:keep]))


def _generate(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Run the package's generator, which seeds the global generators; theirs come back as they were."""
    from mnist1d.data import get_dataset_args, make_dataset

    states = random.getstate(), np.random.get_state()
    try:
        options = get_dataset_args()
        options.seed, options.num_samples = seed, count
        made = make_dataset(options)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    inputs = np.concatenate([made["x"], made["x_test"]]).astype(np.float32)
    return inputs, np.concatenate([made["y"], made["y_test"]]).astype(np.int64)
