"""Lines, planes and Hessians against bare loops and other packages, interleaved in one run.

    make bench-landscape

An MLP 784-512x5-10 with BatchNorm (1.46 M weights), 10 000 synthetic samples, batches of 1000, one thread; Hessians on
the first 2000 samples. Prints medians of ratios of neighbouring runs and writes benchmarks/results/landscape.json.
Needs the packages of the extra `bench`: loss-landscapes and PyHessian, and curvlinops.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout import landscape, sharpness
from smoothout.objective import Objective
from smoothout.samples import Samples
from smoothout.train import workers

RESULTS = Path(__file__).parent / "results" / "landscape.json"
RUNS = 3
LINE, PLANE = 41, 5  # points of the line; of each side of the plane
SAMPLES, BATCH, HESSIAN_SAMPLES = 10_000, 1000, 2000
Batch = tuple[Tensor, Tensor]


def network() -> nn.Module:
    """The MLP, in evaluation mode, with running statistics of its data."""
    torch.manual_seed(0)
    sizes = [784, *([512] * 5)]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10)).eval()


def batches(samples: int = SAMPLES) -> list[Batch]:
    """Synthetic samples of ten classes, each around a centre of its own."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(10, 784, generator=generator)
    targets = torch.randint(0, 10, (SAMPLES,), generator=generator)
    inputs = centres[targets] / 4 + torch.randn(SAMPLES, 784, generator=generator)
    return list(zip(inputs[:samples].split(BATCH), targets[:samples].split(BATCH), strict=True))


def trained() -> tuple[nn.Module, list[Batch]]:
    """The network after one pass of SGD, so that its Hessian is that of a network that has learned something."""
    model, data = network().train(), batches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for inputs, targets in data:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval(), data


# -- lines and planes ---------------------------------------------------------------------------------------------


def directions(model: nn.Module, count: int) -> list[list[Tensor]]:
    """Plain random directions, for the bare loop."""
    generator = torch.Generator().manual_seed(2)
    return [[torch.randn(p.shape, generator=generator) * 0.01 for p in model.parameters()] for _ in range(count)]


@torch.no_grad()
def bare(model: nn.Module, data: list[Batch], points: list[tuple[float, ...]]) -> list[float]:
    """What anyone would write: set the weights, sum the losses."""
    parameters = list(model.parameters())
    start = [p.clone() for p in parameters]
    along = directions(model, len(points[0]))
    found = []
    for point in points:
        for index, parameter in enumerate(parameters):
            parameter.copy_(start[index])
            for coordinate, direction in zip(point, along, strict=True):
                parameter.add_(direction[index], alpha=coordinate)
        total = 0.0
        for inputs, targets in data:
            total += functional.cross_entropy(model(inputs), targets, reduction="sum").item()
        found.append(total / SAMPLES)
    for parameter, value in zip(parameters, start, strict=True):
        parameter.copy_(value)
    return found


def ours_line(model: nn.Module, data: list[Batch]) -> None:
    """A line of ours."""
    landscape.line(model, data, axes=landscape.direction(model), alphas=line_points())


def ours_plane(model: nn.Module, data: list[Batch]) -> None:
    """A plane of ours."""
    first = landscape.direction(model)
    axes = landscape.span(first, landscape.direction(model, orthogonal_to=first))
    landscape.plane(model, data, axes=axes, xs=side(), ys=side())


def line_points() -> tuple[float, ...]:
    """The alphas."""
    return tuple((index - LINE // 2) / (LINE // 2) for index in range(LINE))


def side() -> tuple[float, ...]:
    """The coordinates of a side of the plane."""
    return tuple((index - PLANE // 2) / (PLANE // 2) for index in range(PLANE))


def theirs(model: nn.Module, data: list[Batch], plane: bool) -> None:
    """loss-landscapes, with a metric that sums over the same batches."""
    import loss_landscapes
    from loss_landscapes.metrics.metric import Metric

    class MeanLoss(Metric):
        def __call__(self, wrapper: Any) -> float:
            with torch.no_grad():
                total = sum(
                    functional.cross_entropy(wrapper.forward(inputs), targets, reduction="sum").item()
                    for inputs, targets in data
                )
            return total / SAMPLES

    if plane:
        loss_landscapes.random_plane(model, MeanLoss(), steps=PLANE, normalization="filter", deepcopy_model=True)
    else:
        loss_landscapes.random_line(model, MeanLoss(), steps=LINE, normalization="filter", deepcopy_model=True)


def interleaved(arms: dict[str, Callable[[], object]], repeats: int = 1) -> dict[str, list[float]]:
    """Seconds of every arm, one after the other, several times."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, work in arms.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    return times


def ratios(times: dict[str, list[float]], over: str) -> dict[str, float]:
    """Medians of the ratios of neighbouring runs to the arm ``over``."""
    return {
        name: statistics.median(a / b for a, b in zip(own, times[over], strict=True))
        for name, own in times.items()
        if name != over
    }


def lines_and_planes() -> dict[str, Any]:
    """Times of a line and a plane, as ratios to the bare loop."""
    model, data = trained()
    grid = [(x, y) for y in side() for x in side()]
    line = {
        "bare": lambda: bare(model, data, [(alpha,) for alpha in line_points()]),
        "ours": lambda: ours_line(model, data),
        "loss-landscapes": lambda: theirs(model, data, plane=False),
    }
    plane = {
        "bare": lambda: bare(model, data, grid),
        "ours": lambda: ours_plane(model, data),
        "loss-landscapes": lambda: theirs(model, data, plane=True),
    }
    found = {}
    for name, arms, points in (("line", line, LINE), ("plane", plane, PLANE**2)):
        times = interleaved(arms)
        found[name] = {"points": points, "seconds": times, "ratio to bare": ratios(times, "bare")}
        print(f"{name} of {points} points, time / bare loop: {found[name]['ratio to bare']}", flush=True)
    return found


# -- memory, a process for each arm -------------------------------------------------------------------------------


def peak(arm: str) -> None:
    """Print the highest memory of this process, in MB, while an arm measures a few points."""
    model, data = network(), batches()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here (Linux)
    if arm == "bare":
        bare(model, data, [(alpha,) for alpha in line_points()[:4]])
    elif arm == "ours":
        landscape.line(model, data, axes=landscape.direction(model), alphas=line_points()[:4])
    elif arm == "ours, plane":
        first = landscape.direction(model)
        axes = landscape.span(first, landscape.direction(model, orthogonal_to=first))
        landscape.plane(model, data, axes=axes, xs=side()[:2], ys=side()[:2])
    elif arm == "bare, plane":
        bare(model, data, [(x, y) for y in side()[:2] for x in side()[:2]])
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)


def memory() -> dict[str, float]:
    """Peak memory of each arm, MB."""
    found = {}
    for arm in ("bare", "ours", "bare, plane", "ours, plane"):
        words = [sys.executable, __file__, "--peak", arm]
        found[arm] = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    print(f"peak memory, MB: { {arm: round(value) for arm, value in found.items()} }", flush=True)
    return found


# -- worker processes ---------------------------------------------------------------------------------------------


@functools.cache
def subject() -> tuple[nn.Module, Samples, landscape.Displacements]:
    """What a worker loads once."""
    model, data = trained()
    return model, Samples(data, torch.device("cpu")), landscape.direction(model)


def point(alpha: float) -> float:
    """Measure one point, as a worker of the command does."""
    torch.set_num_threads(1)
    model, samples, axes = subject()
    [found] = landscape.measure_points(model, samples, axes=axes, points=[landscape.Point((alpha,), "keep")])
    return found.loss


def points_per_second(count: int) -> float:
    """Rate of finished points, from the first ones of every worker on: what is left out is the start."""
    alphas = [index / 100 for index in range(24 * count)]
    stamps = [time.perf_counter() for _ in workers.each(point, alphas, count)]
    skip = 2 * count
    return (len(stamps) - 1 - skip) / (stamps[-1] - stamps[skip])


def processes() -> dict[str, float]:
    """Points per second of one and of two processes, one thread each, one after the other."""
    one, two = points_per_second(1), points_per_second(2)
    found = {"one": one, "two": two, "two / one": two / one}
    print(f"points per second: {found}", flush=True)
    return found


# -- Hessians -----------------------------------------------------------------------------------------------------


def bare_product(model: nn.Module, data: list[Batch], vector: list[Tensor]) -> list[Tensor]:
    """A double backward as anyone would write it."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for inputs, targets in data:
        loss = functional.cross_entropy(model(inputs), targets, reduction="sum")
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        product = sum((slope * v).sum() for slope, v in zip(slopes, vector, strict=True))
        torch._foreach_add_(total, torch.autograd.grad(product, parameters))
    return [part / HESSIAN_SAMPLES for part in total]


def products() -> dict[str, Any]:
    """Time of a Hessian product as a ratio to the bare one."""
    model, data = trained()
    some = data[: HESSIAN_SAMPLES // BATCH]
    vector = [torch.randn_like(p) for p in model.parameters()]
    with Objective(model, some) as objective:
        arms = {
            "bare": lambda: bare_product(model, some, vector),
            "ours": lambda: objective.hessian_product(vector),
        }
        interleaved(arms, 2)
        times = interleaved(arms, 10)
    found = {"seconds": {name: statistics.median(each) for name, each in times.items()}, **ratios(times, "bare")}
    print(f"Hessian product, time / bare double backward: {found['ours']:.3f}", flush=True)
    return found


class Counted:
    """A loss that counts the samples it is called on, to count products of other packages."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return functional.cross_entropy(outputs, targets)


def top_eigenvalue() -> dict[str, Any]:
    """The largest eigenvalue: value, products and seconds of each package, and the error of ours."""
    model, data = trained()
    some = data[: HESSIAN_SAMPLES // BATCH]
    exact = reference()
    found: dict[str, Any] = {"reference": exact}
    for name, work in (("ours", our_eigenvalue), ("PyHessian", pyhessian), ("curvlinops, eigsh", curvlinops)):
        began = time.perf_counter()
        value, made, extra = work(model, some)
        error = abs(value / exact - 1)
        found[name] = {"value": value, "error": error, "products": made, **extra}
        found[name]["seconds"] = time.perf_counter() - began
        print(f"largest eigenvalue, {name}: {found[name]}", flush=True)
    return found


@functools.cache
def reference() -> float:
    """The largest eigenvalue by other code than ours, to a thousandth of the tolerance."""
    model, data = trained()
    return curvlinops(model, data[: HESSIAN_SAMPLES // BATCH], tolerance=1e-6)[0]


def our_eigenvalue(model: nn.Module, data: list[Batch]) -> tuple[float, float, dict[str, float]]:
    """Ours, with its residual."""
    made = sharpness.hessian(model, data, smallest=False, trace=False)
    return made.value, made.products, {"residual": made.residual}


def pyhessian(model: nn.Module, data: list[Batch]) -> tuple[float, float, dict[str, float]]:
    """PyHessian's power iteration; as many products as calls of the loss over those of a product."""
    from pyhessian import hessian

    counted = Counted()
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        values, _ = hessian(model, counted, dataloader=data, cuda=False).eigenvalues()
    return float(values[0]), counted.calls / len(data), {}


def curvlinops(model: nn.Module, data: list[Batch], tolerance: float = 1e-3) -> tuple[float, float, dict[str, float]]:
    """curvlinops' operator under SciPy's eigsh, by default at the tolerance of ours."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    parameters = [p for p in model.parameters() if p.requires_grad]
    operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)
    operator = operator.to_scipy()
    made = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal made
        made += 1
        return operator @ vector.astype(np.float32)

    counting = LinearOperator(operator.shape, matvec=product, dtype=np.float32)
    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(np.float32)
    [value] = eigsh(counting, k=1, which="LA", tol=tolerance, v0=start, return_eigenvectors=False)
    return float(value), made, {}


# -- all of it ----------------------------------------------------------------------------------------------------


def goals(runs: list[dict[str, Any]]) -> list[tuple[str, float, float, bool]]:
    """What was to be reached, the median over the runs, the bound, and whether it was reached."""
    wanted: list[tuple[str, Callable[[dict[str, Any]], float], float, bool]] = [
        ("line / bare loop, time", lambda run: run["line"]["ratio to bare"]["ours"], 1.05, True),
        ("plane / bare loop, time", lambda run: run["plane"]["ratio to bare"]["ours"], 1.05, True),
        ("line above bare loop, MB", lambda run: run["memory"]["ours"] - run["memory"]["bare"], 30, True),
        (
            "plane above bare loop, MB",
            lambda run: run["memory"]["ours, plane"] - run["memory"]["bare, plane"],
            30,
            True,
        ),
        ("two processes / one, points per second", lambda run: run["processes"]["two / one"], 1.8, False),
        ("Hessian product / bare double backward, time", lambda run: run["products"]["ours"], 1.1, True),
        ("largest eigenvalue, relative error", lambda run: run["eigenvalue"]["ours"]["error"], 1e-3, True),
        ("largest eigenvalue, products", lambda run: run["eigenvalue"]["ours"]["products"], 16, True),
    ]
    found = []
    for name, value, bound, at_most in wanted:
        median = statistics.median(value(run) for run in runs)
        reached = median <= bound if at_most else median >= bound
        found.append((f"{name} {'<=' if at_most else '>='} {bound:g}", median, bound, reached))
    return found


def main() -> None:
    """Measure everything, on one thread."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the other packages
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2])
        return
    runs = []
    for number in range(1, RUNS + 1):
        print(f"run {number} of {RUNS}", flush=True)
        runs.append(
            {
                **lines_and_planes(),
                "memory": memory(),
                "processes": processes(),
                "products": products(),
                "eigenvalue": top_eigenvalue(),
            }
        )
    environment = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
    }
    met = goals(runs)
    rows = [{"goal": name, "median": median, "met": reached} for name, median, _, reached in met]
    RESULTS.write_text(json.dumps({"environment": environment, "goals": rows, "runs": runs}, indent=1) + "\n")
    for name, median, _, reached in met:
        print(f"{'met   ' if reached else 'MISSED'} {name}: {median:.4g}")
    print(f"goals: {sum(row['met'] for row in rows)} met, {sum(not row['met'] for row in rows)} missed, 0 not measured")


if __name__ == "__main__":
    main()
