"""Names of choices, shared by the library and the commands; nothing here imports torch.

Shape letters used in docstrings:
    n  elements of a tensor        F  filters of a tensor     d  elements of one filter
    B  samples of a batch          b  of a ghost batch        K  ghost batches of a batch
"""

from collections.abc import Callable
from typing import Literal

Scale = Literal["none", "weight", "filter"]
Distribution = Literal["uniform", "normal"]
OneDimensional = Literal["original", "skip"]
ScheduleName = Literal["constant", "anneal", "tanh", "cosine"]
Sync = Literal["independent", "shared"]
LearningRateRule = Literal["sqrt", "linear", "none"]

#: Maps the number of updates made so far to the factor that multiplies the strength.
Schedule = Callable[[int], float]
