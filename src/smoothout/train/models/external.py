"""Models of torchvision and timm, by their names there."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from smoothout import _checks


def torchvision_model(wanted: str, classes: int, config: Mapping[str, Any]) -> nn.Module:
    """``torchvision.models``'s network of a name, with its own initial weights."""
    import torchvision

    _checks.known("the torchvision model", wanted, torchvision.models.list_models(module=torchvision.models))
    given: dict[str, Any] = {"weights": None, "num_classes": classes}
    if wanted in ("googlenet", "inception_v3"):  # else they return more than logits in training, and warn
        given |= {"aux_logits": False, "init_weights": True}
    return _made(torchvision.models.get_model, wanted, given, config)


def timm_model(wanted: str, input_shape: tuple[int, ...], classes: int, config: Mapping[str, Any]) -> nn.Module:
    """timm's network of a name, with its own initial weights; as many input channels as the data has."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise RuntimeError(f"the model 'timm:{wanted}' needs timm, which is not installed; pip install timm.") from None
    if len(input_shape) != 3:
        raise ValueError(
            f"timm:{wanted} takes images of shape (C, H, W), got samples of {input_shape}. Use mlp instead."
        )
    if not timm.is_model(wanted):
        close = difflib.get_close_matches(wanted, timm.list_models(), n=5)
        hint = f"close to it: {', '.join(close)}" if close else "none is close to it"
        raise ValueError(f"the timm model is {wanted!r}; expected one of timm.list_models(); {hint}.")
    given = {"pretrained": False, "num_classes": classes, "in_chans": input_shape[0]}
    return _made(timm.create_model, wanted, given, config)


def _made(create: Callable[..., nn.Module], wanted: str, given: dict[str, Any], config: Mapping[str, Any]) -> nn.Module:
    try:
        return create(wanted, **{**given, **config})
    except TypeError as error:
        if not config:
            raise
        raise ValueError(
            f"{wanted!r} does not take the model config {dict(config)}: {error}. Leave out what it does not know."
        ) from error
