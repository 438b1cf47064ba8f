"""Checkpoints of the original program: ``model_best.pth.tar``, a pickle of plain values and tensors.

It is read with ``weights_only=True``, so nothing in it can run code.
"""

import ast
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoothout.train.config import Settings

_KEYS = {"epoch", "model", "config", "state_dict"}
_RENAMED = {"wide_WResNet": "wide_resnet"}
# The ResNets held their layers twice, and noisy ReLUs kept their noise as buffers.
_SUPERFLUOUS = re.compile(r"(^|\.)(feats\..*|(relu\.)?(noise|device_flag))$")


@dataclass(frozen=True)
class OriginalCheckpoint:
    """What such a file holds.

    Attributes:
        model: Name of the model, as this program calls it.
        config: Its further arguments.
        epoch: Finished epochs.
        regime: In force when it was saved, the learning-rate rule included.
        weights: Parameters and buffers by their names.
    """

    model: str
    config: dict[str, Any]
    epoch: int
    regime: Any
    weights: dict[str, Tensor]


def read(path: Path) -> OriginalCheckpoint:
    """Read a file of the original program.

    Raises:
        ValueError: If it is another file, or holds objects that only running its code would make.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is no checkpoint that can be read safely ({str(error).splitlines()[0]}). Expected a "
            f"model_best.pth.tar of the original program, or a folder that smoothout train wrote."
        ) from error
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        got = ", ".join(sorted(map(str, content))[:8]) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds {got}; expected {', '.join(sorted(_KEYS))}, as the original program wrote.")
    name = str(content["model"])
    return OriginalCheckpoint(
        model=_RENAMED.get(name, name),
        config=_config(content["config"]),
        epoch=int(content["epoch"]),
        regime=content.get("regime"),
        weights=translate(content["state_dict"]),
    )


def _config(config: Any) -> dict[str, Any]:
    """The option --model_config as it was stored: text, perhaps empty, or a dict."""
    read_: Any = ast.literal_eval(config) if isinstance(config, str) and config.strip() else config or {}
    return dict(read_)


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a plain module of today: each layer once, with ``num_batches_tracked``."""
    state = {name.removeprefix("module."): value for name, value in state.items()}  # of DataParallel
    kept = {name: value for name, value in state.items() if not _SUPERFLUOUS.search(name)}
    for name in list(kept):
        stem, _, last = name.rpartition(".")
        if last == "running_mean":
            # Unknown; it matters only for momentum=None.
            kept.setdefault(f"{stem}.num_batches_tracked", torch.zeros((), dtype=torch.int64))
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def settings_of(found: OriginalCheckpoint, dataset: str | None, path: Path) -> Settings:
    """Settings for the network of such a file. It was trained on all training samples: none are held out.

    Raises:
        ValueError: If the data are not named; the file does not say them.
    """
    config = dict(found.config)
    dataset = dataset or config.pop("dataset", None)
    if dataset is None:
        raise ValueError(f"{path} does not say which data it was trained on. Name them, such as --dataset cifar10.")
    config.pop("dataset", None)
    changes: dict[str, Any] = {"model": found.model, "dataset": dataset, "holdout": 0.0}
    for theirs, ours in (("noise", "relu_noise"), ("num_classes", "num_classes"), ("input_size", "input_size")):
        value = config.pop(theirs, None)
        if value is not None:
            changes[ours] = value
    # The original's networks had the outputs of the published data, whatever the folder held.
    outputs = [len(value) for value in found.weights.values() if value.dim() == 2]
    if outputs:
        changes.setdefault("num_classes", outputs[-1])
    return Settings().replace(**changes, model_config=repr(config))
