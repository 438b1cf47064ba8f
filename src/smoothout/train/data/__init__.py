"""Data sets by name, each in three splits: train, hold-out (for every choice) and test (only reported)."""

import importlib

from smoothout import _checks
from smoothout.train.config import Data
from smoothout.train.data.files import DOWNLOADABLE
from smoothout.train.data.splits import DataSet
from smoothout.train.user_code import is_user_code

#: The module of this folder whose function ``load`` knows the data set; imported when used, since torchvision and
#: scikit-learn take seconds.
DATA_SETS = {
    "cifar10": "cifar",
    "cifar100": "cifar",
    "digits": "digits",
    "fashion_mnist": "mnist",
    "imagefolder": "imagefolder",
    "imagenet": "imagenet",
    "mnist": "mnist",
    "mnist1d": "mnist1d",
    "stl10": "stl10",
}


def load(settings: Data, seed: int) -> DataSet:
    """Load a data set; the seed says which training samples are held out."""
    name = settings.dataset
    users = is_user_code(name)
    if not users:
        _checks.known("the dataset", name, DATA_SETS, also="FILE.py:function, or package.module:function")
    if settings.download and name not in DOWNLOADABLE:
        raise ValueError(
            f"download is set and the dataset is {name!r}, which has no place to be fetched from; expected one of "
            f"{', '.join(DOWNLOADABLE)}. Leave --download out."
        )
    if settings.input_size is not None and (users or name == "mnist1d"):
        raise ValueError(
            f"input_size is {settings.input_size} and the dataset {name!r}, which is not known to hold images; "
            f"expected a data set of images. Leave --input-size out."
        )
    module = importlib.import_module(f"smoothout.train.data.{'user' if users else DATA_SETS[name]}")
    loaded: DataSet = module.load(settings, seed)
    return loaded
