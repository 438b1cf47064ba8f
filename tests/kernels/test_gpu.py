"""The GPU kernels by the checks of ``gpu_checks.py``, in Triton's interpreter where there is no GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKS = Path(__file__).parent / "gpu_checks.py"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton, which comes with torch on Linux")
def test_the_kernels_of_a_gpu():
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(CHECKS)],
        env=os.environ | interpreted,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
