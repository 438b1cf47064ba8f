"""Residual networks (He et al. 2015, arXiv 1512.03385): the CIFAR form up to 64 pixels, else the ImageNet form."""

import math

from torch import Tensor, nn

from smoothout import _checks
from smoothout.train.models.noisy_relu import add_relu_noise
from smoothout.train.models.regimes import sgd

CIFAR_PIXELS = 64
CIFAR_RATES = {0: 0.1, 81: 1e-2, 122: 1e-3, 164: 1e-4}
WIDE_RATES = {0: 0.1, 60: 2e-2, 120: 4e-3, 140: 1e-4}
IMAGENET_RATES = {0: 0.1, 30: 1e-2, 60: 1e-3, 90: 1e-4}
WEIGHT_DECAY = 1e-4
WIDER = 4
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class CifarResNet(nn.Module):
    """3x3 convolution of 16, three stages of 16, 32, 64 with n = (depth - 2) // 6 basic blocks, mean, Linear.

    Shortcuts that change shape are a 1x1 convolution with BatchNorm. Convolutions start from
    N(0, 2 / (k^2 out)), BatchNorm at 1 and 0. Depth 44 has 661 338 weights at 10 classes; depth 16 with
    ``widen=4``, which multiplies every number of channels, 2 777 674.
    """

    def __init__(self, channels: int, classes: int, depth: int = 44, widen: int = 1) -> None:
        super().__init__()
        blocks = (_checks.whole("depth", depth, at_least=8) - 2) // 6
        first, second, third = 16 * widen, 32 * widen, 64 * widen
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu: nn.Module = nn.ReLU(inplace=True)
        self.layer1 = _stage(first, first, blocks, stride=1)
        self.layer2 = _stage(first, second, blocks, stride=2)
        self.layer3 = _stage(second, third, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        self.regime = sgd(CIFAR_RATES if widen == 1 else WIDE_RATES, WEIGHT_DECAY)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        x = self.relu(self.bn1(self.conv1(inputs)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock

    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    first = BasicBlock(inputs, outputs, stride, downsample)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def _imagenet(name: str, input_shape: tuple[int, ...], classes: int, depth: int) -> nn.Module:
    """torchvision's network, whose convolutions and BatchNorm start as those of the original program."""
    if input_shape[0] != 3:
        raise ValueError(f"{name} takes 3 channels above {CIFAR_PIXELS} pixels, got samples of {input_shape}.")
    if depth not in list(IMAGENET_BLOCKS):  # a list: whatever the user gave can be looked up
        raise ValueError(
            f"depth is {depth!r}; expected one of {', '.join(map(str, IMAGENET_BLOCKS))} for {name} above "
            f"{CIFAR_PIXELS} pixels."
        )
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block = BasicBlock if depth < 50 else Bottleneck
    network: nn.Module = ResNet(block, list(IMAGENET_BLOCKS[depth]), num_classes=classes)
    network.regime = sgd(IMAGENET_RATES, WEIGHT_DECAY)  # type: ignore[assignment]
    return network


def _takes_cifar_form(name: str, input_shape: tuple[int, ...]) -> bool:
    if len(input_shape) != 3:
        raise ValueError(f"{name} takes images of shape (C, H, W), got samples of {input_shape}. Use mlp instead.")
    return max(input_shape[1:]) <= CIFAR_PIXELS


def resnet(
    input_shape: tuple[int, ...], classes: int, *, depth: int | None = None, relu_noise: float = 0.0
) -> nn.Module:
    """The original's ``resnet``.

    Args:
        depth: 8 or more up to 64 pixels (44); else 18, 34, 50, 101 or 152 (18: 11 689 512 weights at 1000 classes).
        relu_noise: s of the NoisyReLU in the place of every ReLU; 0 leaves plain ReLU.
    """
    if _takes_cifar_form("resnet", input_shape):
        network: nn.Module = CifarResNet(input_shape[0], classes, 44 if depth is None else depth)
    else:
        network = _imagenet("resnet", input_shape, classes, 18 if depth is None else depth)
    add_relu_noise(network, relu_noise)
    return network


def wide_resnet(input_shape: tuple[int, ...], classes: int, *, depth: int | None = None) -> nn.Module:
    """The original's ``wide_resnet``: four times as wide up to 64 pixels (depth 16), else resnet (depth 50)."""
    if _takes_cifar_form("wide_resnet", input_shape):
        return CifarResNet(input_shape[0], classes, 16 if depth is None else depth, widen=WIDER)
    return _imagenet("wide_resnet", input_shape, classes, 50 if depth is None else depth)
