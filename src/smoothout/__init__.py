"""Weight-noise smoothing for large-batch training: SmoothOut and AdaSmoothOut.

See the README for a tour, or ``help(smoothout.SmoothOut)``.
"""

from smoothout.large_batch import ghost_batches
from smoothout.smoothing import AdaSmoothOut, SmoothOut

__version__ = "0.1.0"
__all__ = ["AdaSmoothOut", "SmoothOut", "__version__", "ghost_batches"]
