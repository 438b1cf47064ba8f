"""Models by name; each is built for the input shape and the number of classes of the data."""

from collections.abc import Callable

import torch
from torch import nn

from smoothout import _checks
from smoothout.noise.philox import fold
from smoothout.train.models.mlp import conv1d, mlp, mnist_f1
from smoothout.train.models.resnet import resnet
from smoothout.train.models.shallow import cifar10_shallow
from smoothout.train.user_code import call_with, is_user_code, load_function

Builder = Callable[[tuple[int, ...], int], nn.Module]

MODELS: dict[str, Builder] = {
    "cifar10_shallow": cifar10_shallow,
    "conv1d": conv1d,
    "mlp": mlp,
    "mnist_f1": mnist_f1,
    "resnet": resnet,
}


def build(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Build a model; equal seeds give equal initial weights.

    Args:
        name: One of MODELS, ``torchvision:NAME``, or ``FILE.py:function``, whose function is called with those
            of ``num_classes`` and ``input_shape`` that it takes.
        input_shape: Of one sample, such as (3, 32, 32).
        classes: Number of classes.
        seed: Of the initial weights. The global random state comes back as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(fold(seed) >> 1)
        return _build(name, input_shape, classes)


def _build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    if is_user_code(name):
        model = call_with(load_function(name), num_classes=classes, input_shape=input_shape)
        if not isinstance(model, nn.Module):
            raise TypeError(f"{name!r} returned a {type(model).__name__}; expected a torch.nn.Module.")
        return model
    if name.startswith("torchvision:"):
        import torchvision

        wanted = name.removeprefix("torchvision:")
        _checks.known("the torchvision model", wanted, torchvision.models.list_models(module=torchvision.models))
        made: nn.Module = torchvision.models.get_model(wanted, weights=None, num_classes=classes)
        return made
    _checks.known("the model", name, MODELS, also="torchvision:NAME or FILE.py:function")
    return MODELS[name](input_shape, classes)
