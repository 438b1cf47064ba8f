"""The 1797 handwritten digits of 8x8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, UCI).

A fixed random fifth is the test split, whatever the run's seed; no augmentation.
"""

import functools
import importlib

import torch

from smoothout.train.config import Data
from smoothout.train.data.images import image_set, normaliser
from smoothout.train.data.splits import DataSet, Resident

TEST_SAMPLES, TEST_SEED = 360, 0
# The published values 0..16 are kept as 0..240: exact, bright enough to be seen, and fine enough to be resized.
STEP = 15


def load(settings: Data, seed: int) -> DataSet:
    """Take the digits from the installed package."""
    train, test = _read()
    return image_set(settings, seed, train, test, 10, normaliser((0.5,), (0.5,), white=16 * STEP), None)


@functools.lru_cache(maxsize=1)
def _read() -> tuple[Resident, Resident]:
    try:
        made = importlib.import_module("sklearn.datasets").load_digits()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "digits: the images come with scikit-learn, which is not installed. Run: pip install scikit-learn"
        ) from error
    images = (torch.from_numpy(made.images) * STEP).to(torch.uint8).unsqueeze(1)
    samples = Resident(images, torch.from_numpy(made.target).long())
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(TEST_SEED))
    test, train = order[:TEST_SAMPLES].sort().values, order[TEST_SAMPLES:].sort().values
    return samples.take(train), samples.take(test)
