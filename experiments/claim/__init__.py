"""The eight claims, a module each: what is claimed, how it is measured, and what its page shows of the record."""

from types import ModuleType

from claim import (
    average_first,
    by_filter,
    double_well,
    inverted_u,
    large_batches,
    trace,
    unbiased,
    without_denoising,
)

CLAIMS: dict[int, ModuleType] = dict(
    enumerate(
        (double_well, unbiased, trace, large_batches, inverted_u, by_filter, without_denoising, average_first), start=1
    )
)
