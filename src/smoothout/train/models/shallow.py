"""The shallow convolutional nets C1 and C3 of Keskar et al. 2016."""

from torch import Tensor, nn

from smoothout.train.models.regimes import sgd


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1


class Shallow(nn.Module):
    """Two blocks [conv 5x5 of 64, max-pool 3/2, BatchNorm, ReLU], Linear 384, 192 with dropout, Linear.

    At 3x32x32 it has 1 388 490 weights for 10 classes and 1 405 860 for 100.
    """

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.features = nn.Sequential(
            *(
                nn.Conv2d(channels, 64, 5, padding=2, bias=False),
                nn.MaxPool2d(3, 2),
                nn.BatchNorm2d(64),
                nn.ReLU(),
            ),
            *(nn.Conv2d(64, 64, 5, padding=2, bias=False), nn.MaxPool2d(3, 2), nn.BatchNorm2d(64), nn.ReLU()),
        )
        flat = 64 * _pooled(_pooled(height)) * _pooled(_pooled(width))
        self.classifier = nn.Sequential(
            *(nn.Linear(flat, 384, bias=False), nn.BatchNorm1d(384), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(384, 192, bias=False), nn.BatchNorm1d(192), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(192, classes),
        )
        self.regime = sgd({0: 1e-3, 60: 1e-2, 120: 1e-3, 180: 1e-4}, weight_decay=5e-4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        logits: Tensor = self.classifier(self.features(inputs).flatten(1))
        return logits


def shallow(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The original's ``cifar10_shallow`` and ``cifar100_shallow``, which differ in the number of classes alone."""
    if len(input_shape) != 3 or min(input_shape[1:]) < 7:
        raise ValueError(f"{name} takes images of at least 7x7 pixels, got samples of {input_shape}. Use mlp instead.")
    return Shallow(input_shape, classes)
