"""Statistical tests of the draws, on 2^27 uniform and 2^26 normal ones.

    python benchmarks/draws.py

Moments, chi-square of the distribution, balance of every bit, correlation with the next draws, and between streams,
steps, tensors, seeds and copies. Each becomes a p-value, of which a generator without fault gives uniform ones: with
about fifty tests the lowest is below 1e-4 once in two hundred keys. Writes benchmarks/results/draws.json.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from scipy.stats import chi2, norm
from steps import environment
from torch import Tensor

from smoothout.noise.draws import NoiseKey, normal, uniform_integers

RESULTS = Path(__file__).parent / "results" / "draws.json"
CHUNK, UNIFORM_CHUNKS, NORMAL_CHUNKS = 1 << 22, 32, 16
CPU = torch.device("cpu")
KEY = NoiseKey(12345, 678)
LAGS = (1, 2, 3, 4, 7, 8, 16, 256, 4096)
#: Keys that differ from KEY in one part.
NEIGHBOURS = {
    "seed": NoiseKey(12346, 678),
    "step": NoiseKey(12345, 679),
    "stream": NoiseKey(12345, 678, 1),
    "draw": NoiseKey(12345, 678, 0, 1),
}


def chunks(distribution: str, count: int, key: NoiseKey = KEY, ordinal: int = 0) -> Iterator[Tensor]:
    """Draws as float64, of mean 0 and variance 1."""
    for index in range(count):
        first = index * CHUNK
        if distribution == "uniform":
            [k] = uniform_integers(key, [ordinal], [CHUNK], CPU, first=first)
            yield k.double() / 65536 / math.sqrt((1 - 2**-32) / 3)
        else:
            yield normal(key, [ordinal], [CHUNK], CPU, first=first)[0].double()


def two_sided(z: float) -> float:
    """p-value of a standard normal number."""
    return float(2 * norm.sf(abs(z)))


def moments(distribution: str, count: int) -> Iterator[tuple[str, float]]:
    """Means of z to z^4 against those of the distribution."""
    sums = sum(torch.stack([(z**power).sum() for power in range(1, 9)]) for z in chunks(distribution, count))
    means = (sums / (count * CHUNK)).tolist()
    for power in range(1, 5):
        expected = moment(distribution, power)
        spread = math.sqrt((moment(distribution, 2 * power) - expected**2) / (count * CHUNK))
        yield f"mean of z^{power}", two_sided((means[power - 1] - expected) / spread)


def moment(distribution: str, power: int) -> float:
    """E z^power."""
    if power % 2:
        return 0.0
    if distribution == "normal":
        return float(math.prod(range(1, power, 2)))
    # k odd in (-2^16, 2^16): nearly that of the continuous distribution, and exactly its sum.
    k = torch.arange(1, 65536, 2, dtype=torch.float64) / 65536
    return float((k**power).mean() / ((1 - 2**-32) / 3) ** (power / 2))


def chi_square(distribution: str, count: int) -> Iterator[tuple[str, float]]:
    """Of 4096 bins of equal probability."""
    bins = 4096
    found = torch.zeros(bins, dtype=torch.int64)
    for z in chunks(distribution, count):
        if distribution == "uniform":
            place = ((z * math.sqrt((1 - 2**-32) / 3) + 1) / 2 * bins).long()
        else:
            place = (torch.special.ndtr(z) * bins).long()
        found += torch.bincount(place.clamp(0, bins - 1), minlength=bins)
    expected = count * CHUNK / bins
    statistic = float(((found.double() - expected) ** 2).sum() / expected)
    yield f"chi-square of {bins} bins", float(2 * min(chi2.sf(statistic, bins - 1), chi2.cdf(statistic, bins - 1)))


def bits(count: int) -> Iterator[tuple[str, float]]:
    """How often each of the 16 bits of a uniform draw is set."""
    ones = torch.zeros(16, dtype=torch.int64)
    for index in range(count):
        [k] = uniform_integers(KEY, [0], [CHUNK], CPU, first=index * CHUNK)
        halves = (k - 1) // 2
        ones += torch.stack([((halves >> bit) & 1).sum() for bit in range(16)])
    total = count * CHUNK
    for bit, number in enumerate(ones.tolist()):
        yield f"bit {bit}", two_sided((number - total / 2) / math.sqrt(total / 4))


def correlations(distribution: str, count: int) -> Iterator[tuple[str, float]]:
    """With draws further on, and with those of other keys and tensors."""
    total = count * CHUNK
    sums = dict.fromkeys(LAGS, 0.0)
    for z in chunks(distribution, count):
        for lag in LAGS:
            sums[lag] += float((z * z.roll(lag)).sum())
    for lag, found in sums.items():
        yield f"correlation, lag {lag}", two_sided(found / math.sqrt(total))
    others = {name: (key, 0) for name, key in NEIGHBOURS.items()} | {"tensor": (KEY, 1)}
    for name, (key, ordinal) in others.items():
        pairs = zip(chunks(distribution, count), chunks(distribution, count, key, ordinal), strict=True)
        found = sum(float((z * other).sum()) for z, other in pairs)
        yield f"correlation, next {name}", two_sided(found / math.sqrt(total))


def main() -> None:
    """All tests."""
    found = {}
    for distribution, count in (("uniform", UNIFORM_CHUNKS), ("normal", NORMAL_CHUNKS)):
        tests = [*moments(distribution, count), *chi_square(distribution, count), *correlations(distribution, count)]
        tests += bits(count) if distribution == "uniform" else []
        found[distribution] = {"draws": count * CHUNK, "p": dict(tests)}
        lowest = min(tests, key=lambda test: test[1])
        print(f"{distribution}: {count * CHUNK} draws, {len(tests)} tests, lowest p {lowest[1]:.2g} ({lowest[0]})")
    RESULTS.write_text(json.dumps({"environment": environment(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
