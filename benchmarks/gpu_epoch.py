"""An epoch of resnet-44 on a GPU: `smoothout train` against a plain loop with noise as anyone would write it.

    python benchmarks/gpu_epoch.py

32x32 images drawn at random, with augmentation (pad, crop, flip), batches of 1024 in ghost batches of 128. The plain
loop reads torchvision's data set by a DataLoader of eight processes, and clones, draws and copies back each tensor.
Ours, which draws anew for each ghost batch in one block an update, is measured with several options of `smoothout
train`, in pairs with it. Writes benchmarks/results/gpu_epoch.json.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps import environment, interleaved, naive
from throughput import Images, ours, plain, write
from torch.utils.data import DataLoader

from smoothout.train import models

RESULTS = Path(__file__).parent / "results" / "gpu_epoch.json"
SAMPLES, BATCH, PAIRS, CONFIG = 8192, 1024, 3, {"depth": 44}
WAYS: dict[str, dict[str, Any]] = {
    "": {},
    "--noise-per batch": {"noise_per": "batch"},
    "--compile reduce-overhead": {"compile": "reduce-overhead"},
    "--noise-per batch --compile default": {"noise_per": "batch", "compile": "default"},
}


def usual() -> Callable[[], None]:
    """An epoch of what anyone would write, noise included."""
    model = models.build("resnet", (3, 32, 32), 10, 0, config=CONFIG)
    loader = DataLoader(
        Images(SAMPLES), BATCH, shuffle=True, num_workers=8, pin_memory=True, drop_last=True, persistent_workers=True
    )
    return plain(model, loader, "cuda", naive(model))


def main() -> None:
    """Measure the plain loop against ours, and write after each way."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), SAMPLES)
        loop = usual()
        for name, options in WAYS.items():
            mine = ours(
                Path(place), model="resnet", model_config=str(CONFIG), batch_size=BATCH, strength=0.02, **options
            )
            ratio = interleaved({"plain": loop, "ours": mine}, "ours", PAIRS)["plain"]
            found[name] = ratio.record()
            print(f"naive loop / smoothout train {name}: {ratio}, {ratio.seconds:.2f} s an epoch", flush=True)
            RESULTS.write_text(json.dumps({"environment": environment(), "naive / ours": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
