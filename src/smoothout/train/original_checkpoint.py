"""Checkpoints of the original program: ``model_best.pth.tar``, a pickle of plain values and tensors.

It is read with ``weights_only=True``, so nothing in it can run code.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoothout.train.config import Settings

_KEYS = {"epoch", "model", "config", "state_dict"}
_RENAMED = {"wide_WResNet": "wide_resnet"}
# The ResNets held their layers twice, and noisy ReLUs kept their noise as buffers.
_FEATS = re.compile(r"feats\.\d+\.(.+)")
_NOISE = re.compile(r"(^|\.)(relu|feats\.2)\.(noise|device_flag)$")


@dataclass(frozen=True)
class OriginalCheckpoint:
    """What such a file holds.

    Attributes:
        model: Name of the model, as this program calls it.
        config: Its further arguments.
        epoch: Finished epochs.
        weights: Parameters and buffers by their names.
    """

    model: str
    config: dict[str, Any]
    epoch: int
    weights: dict[str, Tensor]


def read(path: Path) -> OriginalCheckpoint:
    """Read a file of the original program.

    Raises:
        ValueError: If it is another file, or holds objects that only running its code would make.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise of every kind, and torch's text advises to load unsafely
        raise ValueError(
            f"{path} is no checkpoint that can be read safely ({type(error).__name__}). Expected a model_best.pth.tar "
            f"of the original program, whole, or a folder that smoothout train wrote."
        ) from error
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        got = ", ".join(sorted(map(str, content))[:8]) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds {got}; expected {', '.join(sorted(_KEYS))}, as the original program wrote.")
    state, epoch, name = content["state_dict"], content["epoch"], content["model"]
    tensors = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    if not tensors or not isinstance(epoch, int) or not isinstance(name, str):
        kinds = ", ".join(f"{key}: {type(content[key]).__name__}" for key in ("epoch", "model", "state_dict"))
        raise ValueError(
            f"{path} holds {kinds}; expected a number, a name and a dict of tensors, as the original program wrote."
        )
    return OriginalCheckpoint(_RENAMED.get(name, name), parse_config(content["config"], path), epoch, translate(state))


def parse_config(config: Any, where: object) -> dict[str, Any]:
    """The original's --model_config as it is given or stored: text, perhaps empty, or a dict."""
    try:
        found: Any = ast.literal_eval(config) if isinstance(config, str) and config.strip() else config or {}
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{where} has the model config {config!r}; expected a dict, as text or as itself.")
    return found


def split_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is a setting of its own here, by its name, and the rest: further arguments of the model."""
    renamed = {"noise": "relu_noise", "num_classes": "num_classes", "input_size": "input_size"}
    settings = {ours: config[theirs] for theirs, ours in renamed.items() if config.get(theirs) is not None}
    return settings, {name: value for name, value in config.items() if name not in {*renamed, "dataset"}}


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a plain module of today: each layer once, with ``num_batches_tracked``."""
    state = {name.removeprefix("module."): value for name, value in state.items()}  # of DataParallel
    kept = {
        name: value for name, value in state.items() if not (_NOISE.search(name) or _stands_twice(name, value, state))
    }
    for name in list(kept):
        stem, _, last = name.rpartition(".")
        if last == "running_mean":
            # Unknown; it matters only for momentum=None.
            kept.setdefault(f"{stem}.num_batches_tracked", torch.zeros((), dtype=torch.int64))
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def _stands_twice(name: str, value: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether an entry ``feats.N.REST`` is there as ``LAYER.REST`` too."""
    found = _FEATS.fullmatch(name)
    return found is not None and any(
        other.endswith(f".{found[1]}") and not _FEATS.fullmatch(other) and torch.equal(value, twin)
        for other, twin in state.items()
        if twin.shape == value.shape
    )


def settings_of(found: OriginalCheckpoint, dataset: str | None, path: Path) -> Settings:
    """Settings for the network of such a file. It was trained on all training samples: none are held out.

    Raises:
        ValueError: If the data are not named; the file does not say them.
    """
    dataset = dataset or found.config.get("dataset")
    if dataset is None:
        raise ValueError(f"{path} does not say which data it was trained on. Name them, such as --dataset cifar10.")
    changes, config = split_config(found.config)
    changes |= {"model": found.model, "dataset": dataset, "holdout": 0.0}
    # The original's networks had the outputs of the published data, whatever the folder held.
    outputs = [len(value) for value in found.weights.values() if value.dim() == 2]
    if outputs:
        changes.setdefault("num_classes", outputs[-1])
    return Settings().replace(**changes, model_config=repr(config))
