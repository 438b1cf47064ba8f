"""``smoothout`` as torchrun starts it."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
SECONDS = 180
NETS = Path(__file__).parent / "nets.py"
#: 130 samples: 4 updates an epoch, of 5 ghost batches or 2.
SMALL = f"--dataset {NETS}:images --batch-size 40 --ghost-batch-size 8 --epochs 3 --strength 0.05 --seed 3 --device cpu"


def command(words, folder, name, model="conv"):
    return [*words.split(), "--results-dir", str(folder), "--name", name, "--model", f"{NETS}:{model}"]


def torchrun(options, words, inside=(), **environment):
    """Start torchrun; call communicate() on what comes back."""
    return subprocess.Popen(
        [*inside, str(BIN / "torchrun"), *options.split(), "--no-python", str(BIN / "smoothout"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
