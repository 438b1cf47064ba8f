"""What a run's folder says of how it came about: the command of its settings, versions, machine."""

import os
import platform
import shlex
from collections.abc import Mapping
from typing import Any

import torch

import smoothout
from smoothout.results.processes import processor
from smoothout.train.config import Settings


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Options as the words of a command.

    Example:
        >>> words_of({"lr": 0.1, "augment": False, "milestones": [3, 5]})
        ['--lr', '0.1', '--no-augment', '--milestones', '3', '5']
    """
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [f"--{flag}", *map(str, values)]
    return words


def command_of(settings: Settings) -> str:
    """The command that trains with these settings.

    Example:
        >>> command_of(Settings().replace(strength=0.1, seed=3))
        'smoothout train --strength 0.1 --seed 3'
    """
    return shlex.join(["smoothout", "train", *words_of(settings.given())])


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"smoothout": smoothout.__version__, "python": platform.python_version(), "torch": torch.__version__}


def machine(device: torch.device | None = None) -> dict[str, str]:
    """What computes, in words; without a device where several may."""
    found = {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
    }
    if device is not None:
        found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return found
