"""What is learned: data, network and loss, each as the settings and the model itself say."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout.noise.philox import fold
from smoothout.train import data, models
from smoothout.train.config import Settings
from smoothout.train.data.splits import DataSet

#: (logits, targets) -> mean loss of the batch.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Data, network and loss.

    Attributes:
        dataset: With the model's ``input_transform``, if it carries one.
        network: On the device.
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
    loss, training_loss = _losses(network, settings.optimization.label_smoothing)
    problem = Problem(dataset, network, loss, training_loss, getattr(network, "regime", None))
    return replace(problem, outputs=_try(problem, settings))


def _losses(network: nn.Module, smoothing: float) -> tuple[Loss, Loss]:
    """Losses of evaluation and of training."""
    own = getattr(network, "criterion", None)
    if own is None:
        return functional.cross_entropy, lambda logits, y: functional.cross_entropy(
            logits, y, label_smoothing=smoothing
        )
    if smoothing > 0:
        raise ValueError(
            f"label_smoothing is {smoothing} and the model carries its own criterion; expected one of them. "
            f"Smooth the labels in the criterion, or leave --label-smoothing out."
        )
    made: Loss = own() if isinstance(own, type) else own
    return made, made


@torch.no_grad()
def _try(problem: Problem, settings: Settings) -> int:
    """Run two samples, so that what does not fit together is told before anything is written; returns the outputs."""
    network, dataset, name = problem.network, problem.dataset, settings.network.model
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.random.fork_rng():  # a lazy layer takes its first weights now
            torch.default_generator.manual_seed(fold(settings.schedule.seed) >> 1)
            for augment in (None, 0):  # as in evaluation, and as in training
                inputs, targets = next(dataset.train.take(torch.arange(2)).batches([2], augment=augment))
                prepared = dataset.normalise(inputs if augment is None else dataset.augment(inputs))
                logits = _forward(network, prepared, name, settings.data.dataset)
                _check_logits(logits, dataset.classes, name)
    finally:
        for module, training in modes:
            module.training = training
    for loss in (problem.loss, problem.training_loss):
        _check_loss(loss(logits, targets), name)
    return int(logits.shape[1])


def _forward(network: nn.Module, prepared: Tensor, name: str, dataset: str) -> Any:
    try:
        return network(prepared)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the model {name!r} does not take a batch of shape {tuple(prepared.shape)} and type {prepared.dtype} from "
            f"{dataset}: {type(error).__name__}: {error}. Use another model, --input-size, or data of another form."
        ) from error


def _check_logits(logits: Any, classes: int, name: str) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < classes:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the model {name!r} returns {got} for 2 samples; expected logits of shape (2, {classes} or more classes). "
            f"Build it for num_classes={classes}."
        )


def _check_loss(value: Any, name: str) -> None:
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"the criterion of the model {name!r} returns {got}; expected the mean loss of the batch, a scalar. "
            f"Use reduction='mean'."
        )
