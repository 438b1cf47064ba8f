"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) with BatchNorm, in the four variants of the original program."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from smoothout.train.models.regimes import sgd

SMALLEST = 63  # the side of which the last pool leaves one pixel
SIDE = 224  # that the original's transform makes of any image


@dataclass(frozen=True)
class Variant:
    """What sets an AlexNet apart from the others."""

    dropout: float = 0.5
    weight_decay: float = 5e-4
    lr_factor: float = 1.0


VARIANTS = {
    "alexnet": Variant(),
    "alexnetv2": Variant(dropout=0.2, weight_decay=1e-4),
    "alexnetv3": Variant(dropout=0.0, weight_decay=0.0),
    "alexnetvlr": Variant(dropout=0.0, weight_decay=0.0, lr_factor=11.3137),
}
LEARNING_RATES = {0: 1e-2, 20: 1e-3, 40: 1e-4}


class AlexNet(nn.Module):
    """Five convolutions and three Linear layers; only the last has a bias besides BatchNorm's.

    61 110 184 weights at 3x224x224 and 1000 classes. At other sizes the first Linear has other inputs.
    """

    def __init__(self, input_shape: tuple[int, ...], classes: int, variant: Variant) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.features = nn.Sequential(
            *(_conv(channels, 64, 11, 2, stride=4), _pool(), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
            *(_conv(64, 192, 5, 2), _pool(), nn.ReLU(inplace=True), nn.BatchNorm2d(192)),
            *(_conv(192, 384, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(384)),
            *(_conv(384, 256, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(256)),
            *(_conv(256, 256, 3, 1), _pool(), nn.ReLU(inplace=True), nn.BatchNorm2d(256)),
        )
        flat = 256 * _left(height) * _left(width)
        self.classifier = nn.Sequential(
            *(nn.Linear(flat, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)),
            nn.Dropout(variant.dropout),
            *(nn.Linear(4096, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)),
            nn.Dropout(variant.dropout),
            nn.Linear(4096, classes),
        )
        rates = {epoch: lr * variant.lr_factor for epoch, lr in LEARNING_RATES.items()}
        self.regime = sgd(rates, variant.weight_decay)
        self.input_transform = transforms(height, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W)."""
        logits: Tensor = self.classifier(self.features(inputs).flatten(1))
        return logits


def _conv(inputs: int, outputs: int, kernel: int, padding: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2)


def _left(side: int) -> int:
    """Pixels that the first convolution and the three pools leave of a side."""
    side = (side + 2 * 2 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side


def transforms(height: int, width: int) -> dict[str, Any]:
    """What the AlexNets of the original do to images, by split: at 224 pixels resized to 256, then cropped.

    At other sizes the resized side keeps the ratio 256 / 224. Mean and deviation are those of ImageNet.
    """
    from torchvision import transforms as tv

    resize = tv.Resize(round(max(height, width) * 256 / 224))
    tensor = [tv.ToTensor(), tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    return {
        "train": tv.Compose([resize, tv.RandomCrop((height, width)), tv.RandomHorizontalFlip(), *tensor]),
        "eval": tv.Compose([resize, tv.CenterCrop((height, width)), *tensor]),
    }


def alexnet(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the AlexNet of a name in VARIANTS; it brings images that are too small for it to 224x224 itself."""
    if len(input_shape) != 3 or input_shape[0] != 3:
        raise ValueError(f"{name} takes images of 3 channels, got samples of {input_shape}. Use resnet or mlp instead.")
    if min(input_shape[1:]) < SMALLEST:
        input_shape = (3, SIDE, SIDE)
    return AlexNet(input_shape, classes, VARIANTS[name])
