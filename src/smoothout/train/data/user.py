"""A user's data: a function in a file that returns the splits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from smoothout.train.config import Data
from smoothout.train.data.splits import DataSet, Resident, Streamed, cut_holdout
from smoothout.train.user_code import call_with, load_function


def load(settings: Data, seed: int) -> DataSet:
    """Call FILE.py:function, with ``data_dir`` if it takes that.

    It returns a mapping with "train", "test" and perhaps "holdout" (else cut from train): each a pair of
    tensors (inputs, classes), or a map-style dataset of (tensor, class). "classes", their number, may be left
    out where the training targets are a tensor.
    """
    made = call_with(load_function(settings.dataset), data_dir=settings.data_dir)
    allowed = {"train", "holdout", "test", "classes"}
    if not isinstance(made, Mapping) or not {"train", "test"} <= made.keys() <= allowed:
        got = sorted(made) if isinstance(made, Mapping) else type(made).__name__
        raise TypeError(
            f"{settings.dataset!r} returned {got}; expected a mapping with 'train' and 'test', "
            f"and perhaps 'holdout' and 'classes'."
        )
    splits = {name: _split(settings, name, part) for name, part in made.items() if name != "classes"}
    train, holdout = splits["train"], splits.get("holdout")
    classes = made.get("classes") or _count_classes(settings, train)
    if holdout is None:
        kept, held_out = cut_holdout(len(train), settings.holdout, seed)
        train, holdout = train.take(kept), train.take(held_out)
    sample, _ = next(train.batches([1, len(train) - 1]))
    return DataSet(train, holdout, splits["test"], tuple(sample.shape[1:]), classes)


def _split(settings: Data, name: str, part: Any) -> Resident | Streamed:
    if isinstance(part, tuple) and len(part) == 2 and all(isinstance(item, Tensor) for item in part):
        inputs, targets = part
        # NumPy makes float64 and int32, which models and losses refuse.
        return Resident(inputs.float() if inputs.is_floating_point() else inputs, targets.long())
    if isinstance(part, Dataset) and hasattr(part, "__len__"):
        return Streamed(part, part, settings.workers, torch.arange(len(part)))
    raise TypeError(
        f"{settings.dataset!r} returned a {type(part).__name__} for {name!r}; expected a pair of tensors "
        f"(inputs, classes) or a map-style torch Dataset."
    )


def _count_classes(settings: Data, train: Resident | Streamed) -> int:
    if isinstance(train, Resident):
        return int(train.targets.max()) + 1
    raise TypeError(
        f"{settings.dataset!r} returned a Dataset for 'train' and no 'classes'; expected their number too, "
        f"which only reading every sample would tell."
    )
