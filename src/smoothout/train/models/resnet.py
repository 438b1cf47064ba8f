"""Residual networks (He et al. 2015, arXiv 1512.03385): the CIFAR form up to 64 pixels, else the ImageNet form."""

import math

from torch import Tensor, nn

CIFAR_PIXELS = 64


class CifarResNet(nn.Module):
    """3x3 convolution of 16, three stages of 16, 32, 64 with n = (depth - 2) // 6 basic blocks, mean, Linear.

    Shortcuts that change shape are a 1x1 convolution with BatchNorm. Convolutions start from
    N(0, 2 / (k^2 out)), BatchNorm at 1 and 0. Depth 44 has 661 338 weights at 10 classes.
    """

    def __init__(self, channels: int, classes: int, depth: int = 44) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

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


def resnet(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The original's ``resnet``: depth 44 up to 64 pixels, else depth 18 (11 689 512 weights at 1000 classes)."""
    if len(input_shape) != 3:
        raise ValueError(f"resnet takes images of shape (C, H, W), got samples of {input_shape}. Use mlp instead.")
    if max(input_shape[1:]) <= CIFAR_PIXELS:
        return CifarResNet(input_shape[0], classes)
    from torchvision.models import resnet18

    if input_shape[0] != 3:
        raise ValueError(f"resnet takes 3 channels above {CIFAR_PIXELS} pixels, got samples of {input_shape}.")
    # torchvision starts convolutions and BatchNorm from the same values as the original program.
    network: nn.Module = resnet18(weights=None, num_classes=classes)
    return network
