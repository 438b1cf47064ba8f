"""Models by name; each is built for the input shape and the number of classes of the data."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from smoothout import _checks
from smoothout.noise.philox import fold
from smoothout.train.models.alexnet import VARIANTS, alexnet
from smoothout.train.models.external import timm_model, torchvision_model
from smoothout.train.models.mlp import conv1d, mlp, mnist_f1
from smoothout.train.models.resnet import resnet, wide_resnet
from smoothout.train.models.shallow import shallow
from smoothout.train.user_code import call_with, is_user_code, load_function, parameters

Builder = Callable[..., nn.Module]

MODELS: dict[str, Builder] = {
    **{name: partial(alexnet, name) for name in VARIANTS},
    "cifar10_shallow": partial(shallow, "cifar10_shallow"),
    "cifar100_shallow": partial(shallow, "cifar100_shallow"),
    "conv1d": conv1d,
    "mlp": mlp,
    "mnist_f1": mnist_f1,
    "resnet": resnet,
    "wide_resnet": wide_resnet,
}
_OPTIONS = {"num_classes", "input_size", "relu_noise"}
_OTHERS = "torchvision:NAME, timm:NAME, FILE.py:function or package.module:function"


def build(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    config: Mapping[str, Any] | None = None,
    relu_noise: float = 0.0,
) -> nn.Module:
    """Build a model; equal seeds give equal initial weights.

    The models of the original program carry their ``regime``, its AlexNets also ``input_transform``.

    Args:
        name: One of MODELS, ``torchvision:NAME``, ``timm:NAME``, or a user's function, ``FILE.py:function`` or
            ``package.module:function``. That is called with those of ``num_classes``, ``input_shape`` and, for
            images, ``input_size`` (the longer side) that it takes.
        input_shape: Of one sample, such as (3, 32, 32).
        classes: Number of classes.
        seed: Of the initial weights. The global random state comes back as it was.
        config: Further arguments of the model, such as {"depth": 20}. They win over those that a function of a user,
            of torchvision or of timm is given anyway.
        relu_noise: s of :class:`~smoothout.train.models.noisy_relu.NoisyReLU`; only ``resnet`` takes it.
    """
    if relu_noise and name != "resnet":
        raise ValueError(
            f"relu_noise is {relu_noise} and the model {name!r}; only resnet takes it. Choose resnet, or leave it out."
        )
    with torch.random.fork_rng():
        torch.manual_seed(fold(seed) >> 1)
        return _build(name, input_shape, classes, dict(config or {}), relu_noise)


def _build(name: str, input_shape: tuple[int, ...], classes: int, config: dict[str, Any], noise: float) -> nn.Module:
    if is_user_code(name):
        return _users(name, input_shape, classes, config)
    library, _, wanted = name.partition(":")
    if library == "torchvision":
        return torchvision_model(wanted, classes, config)
    if library == "timm":
        return timm_model(wanted, input_shape, classes, config)
    _checks.known("the model", name, MODELS, also=_OTHERS)
    builder = MODELS[name]
    _check_config(name, config, set(parameters(builder) or ()) - {"input_shape", "classes", "relu_noise"})
    return builder(input_shape, classes, **config, **({"relu_noise": noise} if noise else {}))


def _users(name: str, input_shape: tuple[int, ...], classes: int, config: dict[str, Any]) -> nn.Module:
    function = load_function(name)
    _check_config(name, config, parameters(function))
    given: dict[str, Any] = {"num_classes": classes, "input_shape": input_shape}
    if len(input_shape) == 3:
        given["input_size"] = max(input_shape[1:])
    model = call_with(function, **{**given, **config})
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name!r} returned a {type(model).__name__}; expected a torch.nn.Module.")
    return model


def _check_config(name: str, config: dict[str, Any], taken: Collection[str] | None) -> None:
    """Raise ``ValueError`` for an entry that a model does not take; None stands for one that takes any."""
    for key in config:
        if taken is not None and key not in taken:
            option = f" Use --{key.replace('_', '-')}." if key in _OPTIONS else ""
            raise ValueError(
                f"the model config gives {key!r}, which {name!r} does not take; "
                f"it takes {', '.join(sorted(taken)) or 'none'}.{option}"
            )
