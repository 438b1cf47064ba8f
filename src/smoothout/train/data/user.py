"""A user's data: a function in a file or package that returns the splits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from smoothout import _checks
from smoothout.train.config import Data
from smoothout.train.data.splits import DataSet, Resident, Streamed, as_is, cut_holdout, given_holdout
from smoothout.train.user_code import call_with, load_function

KEYS = {"train", "holdout", "test", "classes"}


def load(settings: Data, seed: int) -> DataSet:
    """Call the user's function, with ``data_dir`` if it takes that.

    It returns a mapping with "train", "test" and perhaps "holdout" (else cut from train): each a pair (inputs,
    classes) of tensors or arrays, or a map-style dataset of such pairs for one sample. "classes", their number,
    may be left out where the training classes are a tensor or array.
    """
    made = call_with(load_function(settings.dataset), data_dir=settings.folder)
    if not isinstance(made, Mapping) or not {"train", "test"} <= made.keys() <= KEYS:
        got = sorted(map(str, made)) if isinstance(made, Mapping) else type(made).__name__
        raise TypeError(
            f"{settings.dataset!r} returned {got}; expected a mapping with 'train' and 'test', "
            f"and perhaps 'holdout' and 'classes'."
        )
    where = {name: f"{settings.dataset!r} returned for {name!r}:" for name in made if name != "classes"}
    parts = {name: _part(place, made[name]) for name, place in where.items()}
    classes = _classes(settings, made.get("classes"), parts["train"])
    splits = {name: _split(place, parts[name], classes, settings.workers) for name, place in where.items()}
    train = splits["train"]
    if "holdout" in splits:
        held_out = given_holdout(splits["holdout"], settings.holdout)
    else:
        indices = cut_holdout(len(train), settings.holdout, seed)
        train, held_out = train.take(indices[0]), train.take(indices[1])
    sample, _ = next(train.take(torch.arange(1)).batches([1]))
    return DataSet(train, held_out, splits["test"], tuple(sample.shape[1:]), classes)


def _part(where: str, part: Any) -> tuple[Tensor, Tensor] | Dataset[Any]:
    """A pair of tensors, or a dataset."""
    if isinstance(part, Dataset) and hasattr(part, "__len__"):
        return part
    pair = isinstance(part, (tuple, list)) and [isinstance(item, (Tensor, np.ndarray)) for item in part]
    if pair != [True, True]:
        raise TypeError(
            f"{where} a {type(part).__name__}; expected a pair (inputs, classes) of tensors or arrays, "
            f"or a map-style torch Dataset."
        )
    inputs, targets = _inputs(where, part[0]), _integers(where, part[1])
    if targets.dim() != 1 or inputs.dim() == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"{where} inputs of shape {tuple(inputs.shape)} and classes of shape {tuple(targets.shape)}; expected "
            f"(samples, ...) and (samples,), as many of each. Give one class for each sample."
        )
    return inputs, targets


def _tensor(where: str, values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        # Copied: an array may be read-only or reversed, which tensors cannot be.
        return torch.from_numpy(np.array(values, order="C"))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{where} an array of {values.dtype}; expected numbers in native byte order. Convert it."
        ) from error


def _inputs(where: str, values: Tensor | np.ndarray) -> Tensor:
    """Floats become float32, as weights are; NumPy makes float64."""
    tensor = _tensor(where, values)
    return tensor.float() if tensor.is_floating_point() else tensor


def _integers(where: str, values: Tensor | np.ndarray) -> Tensor:
    """Integers of any type become int64, which losses want."""
    tensor = _tensor(where, values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{where} classes of {tensor.dtype}; expected integers. Convert them, as by .long().")
    return tensor.long()


def _in_range(where: str, targets: Tensor, classes: int) -> None:
    wrong = targets[(targets < 0) | (targets >= classes)]
    if len(wrong):
        raise ValueError(
            f"{where} the class {int(wrong[0])}; expected 0 to {classes - 1}, of {classes} classes. "
            f"Count classes from 0, and give their number as 'classes'."
        )


def _classes(settings: Data, given: Any, train: tuple[Tensor, Tensor] | Dataset[Any]) -> int:
    if given is not None:
        return _checks.whole(f"'classes' of {settings.dataset!r}", given, at_least=1)
    if isinstance(train, Dataset):
        raise TypeError(
            f"{settings.dataset!r} returned a Dataset for 'train' and no 'classes'; expected their number too, "
            f"which only reading every sample would tell."
        )
    return max(0, int(train[1].max())) + 1 if len(train[1]) else 1


def _split(where: str, part: tuple[Tensor, Tensor] | Dataset[Any], classes: int, workers: int) -> Resident | Streamed:
    samples: int = len(part) if isinstance(part, Dataset) else len(part[1])  # type: ignore[arg-type]
    if samples == 0:
        raise ValueError(f"{where} no samples; expected at least one. Leave 'holdout' out to have it cut from train.")
    if isinstance(part, Dataset):
        return Streamed(_Samples(where, part, classes), torch.arange(samples), as_is, as_is, workers=workers)
    _in_range(where, part[1], classes)
    return Resident(*part)


class _Samples(Dataset[Any]):
    """Samples of a user's dataset, each checked as it is read."""

    def __init__(self, where: str, dataset: Dataset[Any], classes: int) -> None:
        self._where, self._dataset, self._classes = where, dataset, classes

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, target = self._dataset[index]
        if not isinstance(inputs, (Tensor, np.ndarray)):
            raise TypeError(
                f"{self._where} a Dataset whose sample {index} is a {type(inputs).__name__}; expected a tensor or "
                f"an array. Convert it in the Dataset."
            )
        converted = _integers(self._where, target if isinstance(target, Tensor) else np.asarray(target))
        if converted.dim() != 0:
            raise ValueError(
                f"{self._where} a Dataset whose sample {index} has a class of shape {tuple(converted.shape)}; "
                f"expected a single integer."
            )
        _in_range(self._where, converted.reshape(1), self._classes)
        return _inputs(self._where, inputs), converted
