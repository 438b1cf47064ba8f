"""What the result of an experiment must say besides its numbers."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import smoothout

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
        "commit": _git("rev-parse", "HEAD") + (" and changes" if _git("status", "--porcelain", *CODE) else ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _processor() -> str:
    """Its model, where the system tells: results differ in their digits between processors."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {models[0] if models else ''}".strip()


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()
