"""Weight-noise smoothing for large-batch training: SmoothOut and AdaSmoothOut.

See the README for a tour, or ``help(smoothout.SmoothOut)``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothout.auto import AutoStrength
    from smoothout.ghost_norm import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d, convert_ghost_batchnorm
    from smoothout.large_batch import ghost_batches
    from smoothout.momentum_sam import MomentumSAM
    from smoothout.running_stats import frozen_running_stats, recompute_running_stats
    from smoothout.smoothing import AdaSmoothOut, SmoothOut

__version__ = "0.1.0"
__all__ = [
    "AdaSmoothOut",
    "AutoStrength",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "MomentumSAM",
    "SmoothOut",
    "__version__",
    "convert_ghost_batchnorm",
    "frozen_running_stats",
    "ghost_batches",
    "recompute_running_stats",
]
#: Where the names above live. They are imported when first used, so that ``smoothout --help`` does not wait for torch.
_HOMES = {
    "AdaSmoothOut": "smoothing",
    "AutoStrength": "auto",
    "GhostBatchNorm1d": "ghost_norm",
    "GhostBatchNorm2d": "ghost_norm",
    "GhostBatchNorm3d": "ghost_norm",
    "MomentumSAM": "momentum_sam",
    "SmoothOut": "smoothing",
    "convert_ghost_batchnorm": "ghost_norm",
    "frozen_running_stats": "running_stats",
    "ghost_batches": "large_batch",
    "recompute_running_stats": "running_stats",
}
_SUBMODULES = ("landscape", "sharpness")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"smoothout.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'smoothout' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"smoothout.{_HOMES[name]}"), name)
    globals()[name] = found  # the next time it is found at once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
