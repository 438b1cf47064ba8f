"""Checkpoints: a folder with weights (safetensors), state (plain values and tensors) and settings.

Nothing that is loaded here can run code: weights are safetensors, the rest loads with ``weights_only=True``,
and code that stored settings name (FILE.py:function) is not run unless the user names it again.
"""

import shlex
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from smoothout.results.checkpoints import STATE, WEIGHTS, place_of
from smoothout.train import original_checkpoint
from smoothout.train.config import Settings
from smoothout.train.user_code import named_again

CONFIG = "config.json"


def save(folder: Path, model: nn.Module, settings: Settings, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a crash at any point leaves the old one or the new one whole."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    # Cloned, since safetensors refuses tied and strided tensors.
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, new / WEIGHTS)
    (new / CONFIG).write_text(settings.to_json(), encoding="utf-8")
    torch.save(state, new / f"{STATE}.part")
    (new / f"{STATE}.part").rename(new / STATE)  # last: a folder with it is complete
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find(path: Path) -> Path:
    """The checkpoint that a path names: its folder, a run's, whose best one is taken, or a file of the original.

    Raises:
        FileNotFoundError: If there is none.
    """
    place = place_of(path)
    if place is not None:
        return place
    raise FileNotFoundError(
        f"{path} is no checkpoint; expected a folder with {WEIGHTS}, {STATE} and {CONFIG}, such as "
        f"runs/NAME/checkpoints/best, a run's folder, or a file model_best.pth.tar of the original program."
    )


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load the weights and buffers of a checkpoint, also of the original program, into a model.

    Raises:
        ValueError: If they do not fit the model; the model is then unchanged.
    """
    weights = original_checkpoint.read(folder).weights if folder.is_file() else load_file(folder / WEIGHTS)
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if missing or unknown:
        raise ValueError(
            f"{folder} was saved from another model: missing {_few(missing)}, unknown {_few(unknown)}. Name the model "
            f"that it was trained with."
        )
    if shapes:
        other = [f"{name} {tuple(weights[name].shape)}, here {tuple(own[name].shape)}" for name in shapes]
        raise ValueError(
            f"{folder} was saved from a model of another size: {_few(other)}. Name the data that it was trained on, or "
            f"give --num-classes, --input-size or --model-config."
        )
    model.load_state_dict(weights)


def _few(names: list[str]) -> str:
    """The first of them."""
    return (", ".join(names[:3]) or "none") + (", ..." if len(names) > 3 else "")


def load_state(folder: Path) -> dict[str, Any]:
    """Load what :func:`save` was given besides the weights."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def load_settings(folder: Path, *, dataset: str | None = None, **given: Any) -> Settings:
    """Read a checkpoint's settings; those given by the user replace the stored ones.

    Raises:
        PermissionError: If stored settings name code, or weights to fetch, that the user has not named again.
    """
    if folder.is_file():
        settings = original_checkpoint.settings_of(original_checkpoint.read(folder), dataset, folder)
    else:
        settings = Settings.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    changes = {"dataset": dataset, **given}
    changes = {name: value for name, value in changes.items() if value is not None}
    refuse_unnamed(folder, {name: text for name, text in named_again(settings).items() if name not in changes})
    return settings.replace(**changes)


def refuse_unnamed(place: Path, unnamed: dict[str, str]) -> None:
    """Raise unless everything that a stored config must not decide alone was named again."""
    for option, text in unnamed.items():
        what = "code named by a stored config is never run" if option != "model_config" else "it fetches weights"
        raise PermissionError(
            f"{place} names {text!r}; {what}. Read it, then name it again: "
            f"--{option.replace('_', '-')} {shlex.quote(text)}."
        )
