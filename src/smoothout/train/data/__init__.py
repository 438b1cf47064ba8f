"""Data sets by name, each in three splits: train, hold-out (for every choice) and test (only reported)."""

import importlib

from smoothout import _checks
from smoothout.train.config import Data
from smoothout.train.data.splits import DataSet
from smoothout.train.user_code import is_user_code

#: Each is a module of this folder with a function ``load``; imported when used, since torchvision takes seconds.
DATA_SETS = ("fashion_mnist", "imagefolder", "mnist1d")


def load(settings: Data, seed: int) -> DataSet:
    """Load a data set; the seed says which training samples are held out."""
    name = "user" if is_user_code(settings.dataset) else settings.dataset
    if name != "user":
        _checks.known("the dataset", name, DATA_SETS, also="FILE.py:function")
    loaded: DataSet = importlib.import_module(f"smoothout.train.data.{name}").load(settings, seed)
    return loaded
