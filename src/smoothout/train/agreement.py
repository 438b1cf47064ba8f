"""What must be the same in all processes of a run; see :meth:`smoothout.ranks.Ranks.same`."""

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smoothout.train.config import Settings
from smoothout.train.data.splits import DataSet, Resident
from smoothout.train.provenance import versions

REMEDY = "Start all with the same command, versions and data."


def of_settings(settings: Settings) -> dict[str, Any]:
    """What must be equal before the data are read."""
    return {**{f"version of {name}": text for name, text in versions().items()}, **settings.flat()}


def of_data(dataset: DataSet) -> dict[str, Any]:
    """What must be equal of the data; of samples in memory the values count, of files their number."""
    found: dict[str, Any] = {}
    for name in ("train", "holdout", "test"):
        split = dataset.split(name)
        found[f"number of {name} samples"] = len(split)
        if isinstance(split, Resident):
            found[f"checksum of the {name} samples"] = _checksums([split.inputs, split.targets])
    return found


def of_replica(network: nn.Module) -> dict[str, Any]:
    """What must be equal after every epoch: the bits of the weights and buffers."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return dict(zip((f"checksum of {name}" for name, _ in named), _checksums([v for _, v in named]), strict=True))


def _checksums(tensors: Sequence[Tensor]) -> list[int]:
    """CRC-32 of the bytes of each."""
    return [
        zlib.crc32(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data) for values in tensors
    ]
