"""The GPU kernels by the checks of ``gpu_checks.py``, in Triton's interpreter where there is no GPU, and how they are
launched by those of ``recorded_launches.py``."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
WITH_TRITON = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton, which comes with torch on Linux"
)


@WITH_TRITON
@pytest.mark.parametrize("checks", ["gpu_checks.py", "recorded_launches.py"])
def test_the_kernels_of_a_gpu(checks):
    interpreted = {} if torch.cuda.is_available() or checks != "gpu_checks.py" else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(HERE / checks)],
        env=os.environ | interpreted,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
