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


# What the extras bring and a run imports only when told to; numba brings scipy.
UNUSED = ["matplotlib", "mlflow", "mnist1d", "optuna", "pandas", "plotly", "pytorch_optimizer", "sklearn"]
UNUSED += ["tensorboard", "timm", "torchvision", "wandb"]


def loaded(names, *words):
    """Those of the packages that a process has imported once a command is done."""
    script = f"""
import sys
from smoothout.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as done:
    status = done.code
assert not status
print("loaded:", *(name for name in {names} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    *printed, last = done.stdout.splitlines()
    return "\n".join(printed), last.split()[1:]


@pytest.mark.parametrize("words", [("--help",), ("train", "--help")], ids=" ".join)
def test_help_does_not_wait_for_torch(words):
    printed, found = loaded(["torch", "numpy", "numba", "accelerate", "scipy", *UNUSED], *words)
    assert "usage: smoothout" in printed
    assert found == []


def test_a_run_imports_only_what_it_uses(tmp_path):
    user = Path(__file__).parent / "train" / "user_code.py"
    words = f"train --dataset {user}:blobs --model {user}:net --epochs 1 --device cpu --strength 0.01".split()
    printed, found = loaded(["torch", *UNUSED], *words, "--results-dir", str(tmp_path))
    assert "written: " in printed
    assert found == ["torch"]


def test_the_library_needs_torch_alone():
    # Everything else that the extras bring is made unimportable first.
    script = """
import sys
extras = "numpy scipy sklearn tyro rich accelerate safetensors torchvision matplotlib mnist1d optuna plotly"
extras += " pytorch_optimizer"
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
