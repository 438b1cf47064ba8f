"""A model of seconds an update against the number of processes, and what it says of GPUs that nobody has measured here.

    T(P) = ceil(K / P) (t_g + t_n) + t_step + max(0, t_comm(P) - overlap)

K ghost batches, t_g seconds for one, t_n for its noise, t_step for what an update does once. Inputs are of three kinds,
kept apart: measured (benchmarks/results), published by makers, and assumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

FLOAT, BFLOAT16 = 4, 2  # bytes

#: Published figures: name, value, unit, source.
H100 = "NVIDIA H100 data sheet (SXM)"
TUNING = "NCCL, src/graph/tuning.cc, ring of the Simple protocol"
PUBLISHED = {
    "memory": (3.35e12, "B/s of device memory", H100),
    "arithmetic": (989.4e12, "bfloat16 operations a second, dense", H100),
    "NVLink": (450e9, "B/s each way for a GPU, in a machine of 8", H100),
    "network": (50e9, "B/s each way for a GPU, 400 Gb/s", "NVIDIA DGX H100 data sheet (8 ConnectX-7)"),
    "NVLink, latency": (3.4e-6, "s a step of a ring in a machine", TUNING),
    "network, latency": (14e-6, "s a step of a ring between machines", TUNING),
}
#: What is neither measured nor published.
ASSUMED = {
    "bandwidth": (0.7, "of published bandwidths, of memory and links alike, is reached"),
    "arithmetic": (0.4, "of published arithmetic is reached by a transformer"),
    "hidden, DDP": (0.5, "of an update's last pass hides the reduction of gradients"),
    "hidden, FSDP2": (0.8, "of every pass hides gathers of weights and the reduction of gradients"),
}


@dataclass(frozen=True)
class Link:
    """Between neighbours of a ring.

    Attributes:
        latency: Seconds a step.
        bandwidth: Bytes a second.
    """

    latency: float
    bandwidth: float

    def all_reduce(self, processes: int, size: float) -> float:
        """Seconds: 2 (P - 1) L + 2 (P - 1) / P S / B."""
        return 2 * self.gather(processes, size)

    def gather(self, processes: int, size: float) -> float:
        """Seconds until all have what is spread over them, or until each has its part of a sum: half of the above."""
        return (processes - 1) * (self.latency + size / processes / self.bandwidth)


@dataclass(frozen=True)
class Fit:
    """A link that explains measured all-reduces.

    Attributes:
        link: The link.
        typical, worst: Root mean square and largest of |predicted / measured - 1|.
    """

    link: Link
    typical: float
    worst: float


def fit(rows: Sequence[tuple[int, float, float]]) -> Fit:
    """Least squares over (processes, bytes, seconds), of relative deviations, since sizes span decades."""
    processes, sizes, seconds = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    terms = np.stack([2 * (processes - 1), 2 * (processes - 1) / processes * sizes], axis=1) / seconds[:, None]
    scale = terms.max(axis=0)
    latency, per_byte = nnls(terms / scale, np.ones(len(rows)))[0] / scale
    link = Link(float(latency), 1 / float(per_byte) if per_byte > 0 else math.inf)
    off = [link.all_reduce(p, size) / measured - 1 for p, size, measured in rows]
    return Fit(link, math.sqrt(sum(each**2 for each in off) / len(off)), max(map(abs, off)))


@dataclass(frozen=True)
class Update:
    """What an update takes in seconds, but for communication.

    Attributes:
        pieces: Ghost batches.
        ghost: Of a ghost batch, forward and backward.
        noise: Of its noise.
        step: Of what is done once.
    """

    pieces: int
    ghost: float
    noise: float
    step: float

    def seconds(self, processes: int, communication: float = 0.0, overlap: float = 0.0, slower: float = 1.0) -> float:
        """T(P); work takes ``slower`` times as long where processes share cores, caches and memory."""
        work = math.ceil(self.pieces / processes) * (self.ghost + self.noise) + self.step
        return work * slower + max(0.0, communication - overlap)


@dataclass(frozen=True)
class Cluster:
    """GPUs in machines. A collective goes through each machine, and between machines, where each GPU has its share."""

    inside: Link
    between: Link
    gpus: int = 8

    def gather(self, gpus: int, size: float, parts: int = 1) -> float:
        """Seconds to gather a size in so many parts, one after another."""
        local = min(gpus, self.gpus)
        part = size / parts
        return parts * (self.inside.gather(local, part) + self.between.gather(gpus // local, part / local))

    def all_reduce(self, gpus: int, size: float, parts: int = 1) -> float:
        """Seconds; twice as much."""
        return 2 * self.gather(gpus, size, parts)


def h100s() -> Cluster:
    """Of published figures, as far as they are assumed to be reached."""
    reached = ASSUMED["bandwidth"][0]
    links = [Link(PUBLISHED[f"{name}, latency"][0], PUBLISHED[name][0] * reached) for name in ("NVLink", "network")]
    return Cluster(*links)


def memory_seconds(size: float) -> float:
    """Seconds to read or write so many bytes on an H100."""
    return size / (PUBLISHED["memory"][0] * ASSUMED["bandwidth"][0])


# -- ResNet-50 under DDP -----------------------------------------------------------------------------------

RESNET50 = {"weights": 25_557_032, "channels": 26_560}  # of its 53 BatchNorms together
GHOST, BATCH = 128, 8192
BUCKET = 25 * 2**20  # bytes, DDP's default


def resnet50(gpu: dict[str, Any], pieces: int, noise: bool) -> Update:
    """An update, from a step of two ghost batches measured on one H100."""
    row = gpu["resnet-50, eager"]["SmoothOut"]
    # SGD with momentum reads weights, gradients and momentum, and writes weights and momentum.
    step = memory_seconds(5 * FLOAT * RESNET50["weights"])
    return Update(pieces, (row["seconds"] - step) / 2, (row["median"] - 1) * row["seconds"] / 2 * noise, step)


def resnet50_seconds(gpu: dict[str, Any], gpus: int, pieces: int, noise: bool) -> float:
    """Seconds an update on so many H100s; each has a machine's links to itself."""
    update, cluster = resnet50(gpu, pieces, noise), h100s()
    gradients = FLOAT * RESNET50["weights"]
    hidden = cluster.all_reduce(gpus, gradients, parts=math.ceil(gradients / BUCKET))
    bare = cluster.all_reduce(gpus, 2 * FLOAT * RESNET50["channels"])  # BatchNorm's statistics, after the last pass
    return update.seconds(gpus, hidden, ASSUMED["hidden, DDP"][0] * update.ghost) + bare


# -- a transformer under FSDP2 -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sharded:
    """An update with weights sharded over all GPUs, which pass each ghost batch together.

    Attributes:
        first, later: Gathers of all weights in the first pass of an update and in each later one.
        draws: Noises an update; "each" for one a ghost batch.
    """

    first: int
    later: int
    draws: str

    def seconds(self, passes: int, ghost: float, noise: float, gather: float, scatter: float, hidden: float) -> float:
        """Seconds of so many passes, each of which ends in the reduction of its gradients.

        Args:
            passes: Ghost batches.
            ghost: Seconds of a pass on a GPU.
            noise: Of a draw.
            gather, scatter: Of all weights, and of all gradients.
            hidden: Of the communication in a pass.
        """
        waits = [max(0.0, count * gather + scatter - hidden) for count in (self.first, self.later)]
        draws = {"none": 0, "one": 1, "each": passes}[self.draws]
        return passes * ghost + waits[0] + (passes - 1) * waits[1] + draws * noise


#: Ways to train, by name.
WAYS = {
    "no noise, weights stay gathered over an update": Sharded(1, 0, "none"),
    "one noise an update, weights stay gathered": Sharded(1, 0, "one"),
    "no noise, gathered again for every pass and its backward (FSDP2's default)": Sharded(2, 2, "none"),
    "a noise a ghost batch, gathered once a pass": Sharded(1, 1, "each"),
    "a noise a ghost batch, gathered again for the backward (FSDP2's default)": Sharded(2, 2, "each"),
}
#: 32 layers of width 4096, as Llama 2 7B (Touvron et al. 2023, arXiv 2307.09288).
TRANSFORMER = {"weights": 6_738_415_616, "layers": 32, "tensors": 291}
PASSES = 8


def block_seconds(gpu: dict[str, Any]) -> tuple[float, float, float]:
    """Of a block on one H100: seconds at least, a weight, and a tensor, by least squares of relative deviations."""
    rows = [*gpu["growth"]["weights"], *gpu["growth"]["tensors"]]
    terms = np.array([[1.0, row["weights"], row["tensors"]] for row in rows])
    terms /= np.array([[row["block, seconds"]] for row in rows])
    scale = terms.max(axis=0)
    least, weight, tensor = nnls(terms / scale, np.ones(len(rows)))[0] / scale
    return float(least), float(weight), float(tensor)


def transformer_seconds(gpu: dict[str, Any], gpus: int, tokens: int, way: Sharded) -> float:
    """Seconds an update of 8 ghost batches, of so many tokens on each GPU."""
    weights, cluster = TRANSFORMER["weights"], h100s()
    ghost = 6 * weights * tokens / (PUBLISHED["arithmetic"][0] * ASSUMED["arithmetic"][0])
    least, per_weight, per_tensor = block_seconds(gpu)
    noise = least + per_weight * weights / gpus + per_tensor * TRANSFORMER["tensors"]
    gather = cluster.gather(gpus, BFLOAT16 * weights, TRANSFORMER["layers"])
    # AdamW reads weights, gradients and two moments, and writes weights and moments, of its shard.
    step = memory_seconds(7 * FLOAT * weights / gpus)
    return way.seconds(PASSES, ghost, noise, gather, gather, ASSUMED["hidden, FSDP2"][0] * ghost) + step


# -- what was measured here --------------------------------------------------------------------------------


def updates_here(rows: Sequence[dict[str, Any]]) -> tuple[Update, Update]:
    """Without and with noise, from updates of two sizes in one process; ``pieces`` are 0."""
    few, many = sorted((row for row in rows if row["processes"] == 1), key=lambda row: row["ghosts"])

    def line(name: str) -> tuple[float, float]:
        slope = (many[name] - few[name]) / (many["ghosts"] - few["ghosts"])
        return slope, max(0.0, few[name] - few["ghosts"] * slope)

    ghost, step = line("plain")
    noise, once = line("noise")
    return Update(0, ghost, 0.0, step), Update(0, ghost, noise, step + once)


def predicted_here(network: dict[str, Any], links: dict[int, Link]) -> list[dict[str, Any]]:
    """For each measured case in several processes, measured and predicted seconds.

    How much processes slow each other down is measured, side by side and without communication. Nothing hides the
    communication: the cores that would carry it are at work.
    """
    found = []
    for row in (row for row in network["updates"] if row["processes"] > 1):
        link, processes = links[row["processes"]], row["processes"]
        sent = [FLOAT * network["weights"], *([2 * FLOAT * network["channels"]] if network["channels"] else [])]
        communication = sum(link.all_reduce(processes, size) for size in sent)
        for name, update in zip(("plain", "noisy"), updates_here(network["updates"]), strict=True):
            here = replace(update, pieces=row["ghosts"])
            predicted = here.seconds(processes, communication, slower=network["side by side"][str(processes)])
            case = {"ghosts": row["ghosts"], "processes": processes, "noise": name == "noisy"}
            found.append(case | {"measured": row[name], "predicted": predicted})
    return found
