"""What the result of an experiment must say besides its numbers."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import smoothout
from smoothout.results.processes import commit_of, processor

RESULTS = Path(__file__).parent / "results"
CODE = (":(top)src", ":(top,glob)experiments/**/*.py")  # what a result depends on besides its commit


def write(name: str, command: str, record: dict[str, Any]) -> Path:
    """Write experiments/results/NAME.json."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"command": command, **environment(), **record}, indent=1) + "\n", encoding="utf-8")
    return path


def environment() -> dict[str, Any]:
    """Versions and machine."""
    return {
        "smoothout": smoothout.__version__,
        "commit": commit_of(RESULTS.parent, "--", *CODE) or "",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
