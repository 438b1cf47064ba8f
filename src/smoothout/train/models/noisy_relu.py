"""ReLU whose slope is random in training, the ``--relu_noise`` of the original program."""

import torch
from torch import Tensor, nn

from smoothout import _checks


class NoisyReLU(nn.Module):
    """max(0, x) U(1 - s, 1 + s) in training, each activation with its own draw; max(0, x) in evaluation.

    The draws come from torch's global generator of the input's device. Nothing is stored: no parameters, no buffers.

    Args:
        s: Half-width of the slopes around 1, from 0 to 1.
    """

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = _checks.nonnegative("relu_noise", s, "Use 0 to switch it off.")
        if self.s > 1:
            raise ValueError(f"relu_noise is {s}; expected a number from 0 to 1, above which slopes turn negative.")

    def forward(self, inputs: Tensor) -> Tensor:
        """Activations of the shape of the inputs."""
        positive = torch.relu(inputs)
        if not self.training:
            return positive
        return positive * torch.empty_like(positive).uniform_(1 - self.s, 1 + self.s)

    def extra_repr(self) -> str:
        """Show s."""
        return f"s={self.s}"


def add_relu_noise(network: nn.Module, s: float) -> None:
    """Put a :class:`NoisyReLU` in the place of every ``nn.ReLU`` of a network, unless s is 0."""
    if s == 0:
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, NoisyReLU(s))
