"""A small transformer: rows of an image are its tokens; LayerNorm throughout, no BatchNorm, no dropout."""

import torch
from torch import Tensor, nn


class RowTransformer(nn.Module):
    """Pre-norm encoder over the rows of an image, averaged, and a Linear."""

    def __init__(self, channels: int, rows: int, columns: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels * columns, width)
        self.position = nn.Parameter(torch.randn(rows, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.classify = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        rows = images.transpose(1, 2).flatten(2)
        logits: Tensor = self.classify(self.encoder(self.embed(rows) + self.position).mean(1))
        return logits


def transformer(num_classes: int, input_shape: tuple[int, ...], width: int = 32, depth: int = 2) -> nn.Module:
    """The network for images of this shape."""
    return RowTransformer(*input_shape, num_classes, width, depth)
