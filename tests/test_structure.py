"""How the house is built: imports point down, public names have one path, the bare package needs torch alone."""

import subprocess
import sys
from pathlib import Path

import pytest

import smoothout


def test_imports_point_down():
    from importlinter.cli import lint_imports

    root = Path(__file__).parents[1]
    assert lint_imports(config_filename=str(root / "pyproject.toml"), cache_dir=None) == 0


NORMS = {"GhostBatchNorm1d", "GhostBatchNorm2d", "GhostBatchNorm3d", "convert_ghost_batchnorm"}
NORMS |= {"frozen_running_stats", "recompute_running_stats"}


def test_public_names():
    names = {"AdaSmoothOut", "AutoStrength", "MomentumSAM", "SmoothOut", "ghost_batches", *NORMS}
    assert set(smoothout.__all__) - {"__version__"} == names
    assert all(getattr(smoothout, name).__name__ == name for name in names)
    assert names <= set(dir(smoothout))
    with pytest.raises(AttributeError, match="module 'smoothout' has no attribute 'Smoothout'"):
        smoothout.Smoothout  # noqa: B018


def test_help_does_not_wait_for_torch():
    script = "import sys; from smoothout.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "usage: smoothout COMMAND" in done.stdout


def test_the_library_needs_torch_alone():
    # Everything else that the extras bring is made unimportable first.
    script = """
import sys
extras = "numpy scipy sklearn tyro rich accelerate safetensors torchvision matplotlib mnist1d optuna pytorch_optimizer"
for name in extras.split():
    sys.modules[name] = None
import torch, smoothout
model = torch.nn.Linear(3, 2)
smoother = smoothout.AdaSmoothOut(model, 0.3)
for x, y in smoothout.ghost_batches(torch.ones(5, 3), torch.zeros(5), size=2):
    with smoother.perturbed():
        model(x).sum().backward()
smoother.step()
norm = smoothout.convert_ghost_batchnorm(torch.nn.BatchNorm1d(3), 2)
norm(torch.randn(5, 3))
smoothout.recompute_running_stats(norm, [torch.randn(5, 3)])
print(smoother.summary().weights)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "8"
