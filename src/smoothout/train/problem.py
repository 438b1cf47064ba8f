"""What is learned: data, network and loss, each as the settings and the model itself say."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout.noise.philox import fold
from smoothout.train import data, models, passes
from smoothout.train.config import Settings
from smoothout.train.data.splits import DataSet

_CRITERION = "Expected a function of (logits, targets), or a class of such that is made without arguments."

#: (logits, targets) -> mean loss of the batch.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Data, network and loss.

    Attributes:
        dataset: With the model's ``input_transform``, if it carries one.
        network: On the device, in the memory format of the settings, as the dataset's ``normalise`` makes inputs.
        loss: Of evaluation.
        training_loss: The same, with label smoothing.
        regime: The model's ``regime``, None if it carries none.
        outputs: Of the network; at least the classes of the data.
    """

    dataset: DataSet
    network: nn.Module
    loss: Loss
    training_loss: Loss
    regime: Any
    outputs: int = 0


def pose(settings: Settings, device: torch.device) -> Problem:
    """Load the data, build the network and choose the loss.

    A model may carry ``input_transform`` ({'train': ..., 'eval': ...}, in place of the data set's own),
    ``criterion`` (a loss of (logits, targets), or its class, in place of cross entropy) and ``regime``.
    """
    seed, wanted = settings.schedule.seed, settings.network
    dataset = data.load(settings.data, seed)
    classes = wanted.num_classes or dataset.classes
    if classes < dataset.classes:
        raise ValueError(
            f"num_classes is {classes} and {settings.data.dataset} has {dataset.classes} classes; expected at least "
            f"as many. Leave --num-classes out to take those of the data."
        )
    network = models.build(
        wanted.model, dataset.input_shape, classes, seed, config=wanted.arguments, relu_noise=wanted.relu_noise
    )
    transforms = getattr(network, "input_transform", None)
    if transforms is not None:
        dataset = dataset.transformed(transforms, augment=settings.data.augment, workers=settings.data.workers)
    dataset = dataset.to(device)
    network.to(device)
    if settings.schedule.channels_last:
        dataset = passes.channels_last(network, dataset, settings.data.dataset)
    loss, training_loss = _losses(network, settings.optimization.label_smoothing, device)
    problem = Problem(dataset, network, loss, training_loss, getattr(network, "regime", None))
    return replace(problem, outputs=_try(problem, settings))


def _losses(network: nn.Module, smoothing: float, device: torch.device) -> tuple[Loss, Loss]:
    """Losses of evaluation and of training."""
    # As a module it would be a layer of the network: trained, given noise and saved.
    own = network._modules.pop("criterion", None) or getattr(network, "criterion", None)
    if own is None:
        return functional.cross_entropy, lambda logits, y: functional.cross_entropy(
            logits, y, label_smoothing=smoothing
        )
    if smoothing > 0:
        raise ValueError(
            f"label_smoothing is {smoothing} and the model carries its own criterion; expected one of them. "
            f"Smooth the labels in the criterion, or leave --label-smoothing out."
        )
    if isinstance(own, nn.Module):
        object.__setattr__(network, "criterion", own)
    try:
        made: Loss = own() if isinstance(own, type) else own
    except TypeError as error:
        raise ValueError(f"the model's criterion cannot be made: {error}. {_CRITERION}") from error
    if isinstance(made, nn.Module):
        made.to(device)
    return made, made


@torch.no_grad()
def _try(problem: Problem, settings: Settings) -> int:
    """Run a few samples, so that what does not fit together is told before anything is written; returns the outputs."""
    network = problem.network
    modes = [(module, module.training) for module in network.modules()]
    buffers: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.random.fork_rng():  # a lazy layer takes its first weights now
            torch.default_generator.manual_seed(fold(settings.schedule.seed) >> 1)
            outputs = _pass(problem, settings, samples=3, training=False)
            buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
            _pass(problem, settings, samples=4, training=True)
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
        for module, training in modes:
            module.training = training
    return outputs


def _pass(problem: Problem, settings: Settings, samples: int, training: bool) -> int:
    """Run samples as training or as evaluation does; returns the outputs."""
    network, dataset, name = problem.network, problem.dataset, settings.network.model
    samples = min(samples, len(dataset.train))
    split = dataset.train.take(torch.arange(samples))
    inputs, targets = next(split.batches([samples], augment=0 if training else None))
    prepared = dataset.normalise(dataset.augment(inputs) if training else inputs)
    network.train(training)
    try:
        logits = network(prepared)
    except Exception as error:  # whatever a user's model raises
        raise ValueError(
            f"the model {name!r} does not take a batch of shape {tuple(prepared.shape)} and type {prepared.dtype} from "
            f"{settings.data.dataset}{' in training' if training else ''}: {type(error).__name__}: {error}. Use "
            f"another model, --input-size, or data of another form."
        ) from error
    _check_logits(logits, samples, dataset.classes, name)
    try:
        value = (problem.training_loss if training else problem.loss)(logits, targets)
    except Exception as error:  # whatever a user's criterion raises
        raise ValueError(
            f"the criterion of the model {name!r} failed: {type(error).__name__}: {error}. {_CRITERION}"
        ) from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"the criterion of the model {name!r} returns {got}; expected the mean loss of the batch, a scalar. "
            f"Use reduction='mean'."
        )
    return int(logits.shape[1])


def _check_logits(logits: Any, samples: int, classes: int, name: str) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < classes:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"the model {name!r} returns {got} for {samples} samples; expected logits of shape ({samples}, {classes} "
            f"or more classes). Build it for num_classes={classes}, without auxiliary outputs."
        )
