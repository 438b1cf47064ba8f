"""Small networks: multilayer perceptrons and a 1-D convolutional net."""

import math

from torch import Tensor, nn

from smoothout.train.models.regimes import sgd


def _perceptron(inputs: int, hidden: tuple[int, ...], classes: int) -> list[nn.Module]:
    """[Linear, BatchNorm, ReLU] for each hidden layer, then a Linear."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return [*layers, nn.Linear(inputs, classes)]


def mlp(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three hidden layers of 200 with BatchNorm (91 810 weights on mnist1d)."""
    return nn.Sequential(nn.Flatten(), *_perceptron(math.prod(input_shape), (200,) * 3, classes))


def conv1d(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three convolutions of 25 channels, kernels 5, 3, 3, stride 2, with BatchNorm, on a signal (length,)."""
    if len(input_shape) != 1:
        raise ValueError(f"conv1d takes signals of shape (length,), got samples of {input_shape}. Use mlp or resnet.")
    length, channels = input_shape[0], 1
    layers: list[nn.Module] = [nn.Unflatten(1, (1, length))]
    for kernel in (5, 3, 3):
        layers += [
            nn.Conv1d(channels, 25, kernel, stride=2, padding=1),
            nn.BatchNorm1d(25),
            nn.ReLU(),
        ]
        length, channels = (length + 2 - kernel) // 2 + 1, 25
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(25 * length, classes))


class MnistF1(nn.Module):
    """F1 of Keskar et al. 2016: five hidden layers of 512 with BatchNorm (1 462 794 weights at 784 inputs)."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_perceptron(inputs, (512,) * 5, classes))
        self.regime = sgd({0: 0.1, 10: 1e-2, 20: 1e-3, 30: 1e-4}, weight_decay=1e-4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of inputs (B, ...)."""
        logits: Tensor = self.layers(inputs.flatten(1))
        return logits


def mnist_f1(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The original's ``mnist_f1``; parameter names ``layers.N``."""
    return MnistF1(math.prod(input_shape), classes)
