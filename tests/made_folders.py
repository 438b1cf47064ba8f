"""Folders as the workshop leaves them, made in milliseconds: runs, comparisons, measures, landscapes."""

import json
import math
from dataclasses import asdict

import numpy as np

from smoothout.results.checkpoints import weights_digest
from smoothout.results.comparisons import slug
from smoothout.results.files import write_json
from smoothout.results.landscape import Line, Mark, Plane
from smoothout.results.runs import EpochMetrics, RunResult, write_metrics
from smoothout.results.sharpness import BallSharpness, Center, HessianSharpness, NoiseSharpness
from smoothout.train.config import Settings

CENTER = Center(loss=0.01, error1=0.5, samples=4000, weights=15210, max_gradient=0.001, versions={"torch": "2"})


def make_run(path, *, accuracy=70.0, epochs=5, done=None, seconds=2.0, seed=0, result=True, **settings):
    """A run's folder; accuracies rise to the given one."""
    done = epochs if done is None else done
    (path / "checkpoints" / "best").mkdir(parents=True)
    made = Settings().replace(seed=seed, epochs=epochs, **settings)
    (path / "config.json").write_text(made.to_json())
    for name in ("state.pt", "model.safetensors"):
        (path / "checkpoints" / "best" / name).write_text(f"{path} {accuracy}")
    rows = [row(epoch, accuracy, epochs, settings.get("strength", 0.0)) for epoch in range(1, done + 1)]
    write_metrics(path / "metrics.csv", rows)
    if result and done == epochs:
        write_json(path / "result.json", run_result(seed, epochs, accuracy, seconds))
    return path


def row(epoch, accuracy, epochs, strength):
    error = 100 - accuracy * (1 - math.exp(-5 * epoch / epochs))
    losses = {f"{split}_loss": error / 40 for split in ("train", "holdout", "test")}
    errors = {f"{split}_error1": error for split in ("train", "holdout", "test")}
    others = {f"{split}_error5": error / 2 for split in ("train", "holdout", "test")}
    return EpochMetrics(
        epoch=epoch,
        **losses,
        **errors,
        **others,
        lr=0.1,
        strength=strength,
        r=strength * 3,
        updates=4 * epoch,
        distance=math.sqrt(epoch),
        seconds=0.4,
        samples_per_second=1e4,
    )


def run_result(seed, epochs, accuracy, seconds):
    return RunResult(
        seed=seed,
        epochs=epochs,
        updates=4 * epochs,
        best_epoch=epochs,
        train_accuracy_last=99.0,
        holdout_accuracy_last=accuracy - 1,
        test_accuracy_last=accuracy,
        holdout_accuracy_best=accuracy - 0.5,
        test_accuracy_best=accuracy + 0.25,
        train_loss_last=0.1,
        holdout_loss_last=1.0,
        test_loss_last=1.1,
        seconds=seconds,
    )


def make_comparison(path, arms, *, seeds=(0, 1, 2), epochs=5, **common):
    """A comparison's folder. An arm is (accuracies by seed, against, settings); None for a run that has not begun."""
    record = {"seeds": list(seeds), "arms": {}}
    for name, (accuracies, against, settings) in arms.items():
        options = {"epochs": epochs, **common, **settings}
        record["arms"][name] = {"against": against, "settings": Settings().replace(**options).to_json()}
        for seed, accuracy in zip(seeds, accuracies, strict=True):
            if accuracy is not None:
                make_run(path / slug(name) / str(seed), accuracy=accuracy, seed=seed, **options)
    path.mkdir(parents=True, exist_ok=True)
    (path / "comparison.json").write_text(json.dumps(record))
    return path


def make_sharpness(folder, measured):
    """sharpness.json of (run's folder, record, measure's name, options)."""
    rows = [
        {
            "key": str(index),
            "checkpoint": str(run),
            "weights": weights_digest(run),
            "split": "train",
            "samples": None,
            "device": "cpu",
            "measure": measure,
            "options": options,
            "kind": type(record).__name__,
            "record": asdict(record),
        }
        for index, (run, record, measure, options) in enumerate(measured)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sharpness.json", {"schema": 1, "command": "smoothout sharpness ...", "measures": rows})


def noise(run, strength, value, error=0.001):
    record = NoiseSharpness(
        value=value,
        center=CENTER,
        doubts=(),
        seconds=1.0,
        seed=0,
        standard_error=error,
        error1_rise=1.0,
        error1_standard_error=0.1,
        strength=strength,
        scale="none",
        distribution="uniform",
        relative_noise=0.1,
        pairs=20,
        perturbed=15210,
    )
    return run, record, "noise", {"strength": strength, "scale": "none", "distribution": "uniform"}


def ball(run, value, error=0.001):
    record = BallSharpness(
        value=value,
        center=CENTER,
        doubts=("one step may fall short",),
        seconds=1.0,
        seed=0,
        per_batch=2 * value,
        per_batch_standard_error=error,
        per_batch_doubts=(),
        radius=0.05,
        steps=1,
        batch_size=128,
        samples=4000,
    )
    return run, record, "ball", {"radius": 0.05}


def hessian(run, value):
    record = HessianSharpness(
        value=value,
        center=CENTER,
        doubts=(),
        seconds=1.0,
        seed=0,
        residual=1e-7,
        eigenvalues=(value,),
        residuals=(1e-7,),
        eigenvalue_doubts=((),),
        smallest=math.nan,
        smallest_residual=math.nan,
        smallest_doubts=(),
        trace=10 * value,
        trace_standard_error=0.1,
        trace_doubts=(),
        probes=10,
        products=80,
        made_by="double backward",
        parameters=("*",),
    )
    return run, record, "hessian", {"count": 1}


def make_plane(folder, run, *, size=5, height=1.0, wild=False):
    """A landscape's folder: a bowl."""
    at = np.linspace(-1, 1, size)
    losses = 0.01 + height * (at[:, None] ** 2 + 2 * at[None, :] ** 2)
    if wild:
        losses[0, 0] = np.inf
    plane = Plane(
        **_common(run, (3.0, 2.0)),
        marks=(Mark("center", (0.0, 0.0), 0.01, 5.0, 0.01, 5.0, True),),
        xs=tuple(at.tolist()),
        ys=tuple(at.tolist()),
        losses=tuple(map(tuple, losses.tolist())),
        errors1=tuple(map(tuple, (50 * at[None, :] ** 2 + 0 * losses.clip(0, 1)).tolist())),
        finished=((True,) * size,) * size,
    )
    return _save(folder, "plane-train", plane, run)


def make_line(folder, run, to):
    alphas = tuple(np.linspace(-1, 2, 7).tolist())
    line = Line(
        **_common(run, (3.0,)),
        marks=(Mark("A", (0.0,), 0.1, 5.0, 0.1, 5.0, True), Mark("B", (1.0,), 0.2, 6.0, 0.2, 6.0, True)),
        alphas=alphas,
        positions=alphas,
        losses=(3.0, 1.0, 0.1, 0.5, 0.2, 1.0, math.nan),
        errors1=(90.0, 50.0, 5.0, 20.0, 6.0, 60.0, 90.0),
        finished=(True,) * 7,
        mode="linear",
        barrier=0.4,
    )
    return _save(folder, "line-train", line, run, to)


def _common(run, lengths):
    return {
        "axes": "two random directions",
        "lengths": lengths,
        "bn": "keep",
        "samples": 4000,
        "weights": 15210,
        "seed": 0,
        "doubts": ("a doubt",),
        "seconds": 1.0,
    }


def _save(folder, name, record, *runs):
    folder.mkdir(parents=True, exist_ok=True)
    record.save(folder / name)
    about = {
        "command": "smoothout landscape ...",
        "key": "0",
        "checkpoints": [str(run) for run in runs],
        "weights": [weights_digest(run) for run in runs],
        "splits": ["train"],
        "sampling": {},
        "device": "cpu",
    }
    write_json(folder / "landscape.json", about)
    return folder


def demo_like(path, *, epochs=5, seeds=3, size=5):
    """A comparison of four arms with measures and planes of their first seeds, and a line between two of them."""
    gains = {"small batch": 3.0, "large batch": 0.0, "SmoothOut": 2.0, "AdaSmoothOut": 2.1}
    arms = {
        name: ([70 + gain + 0.1 * seed * (1 if gain else -1) for seed in range(seeds)], "large batch", options)
        for (name, gain), options in zip(
            gains.items(),
            ({"batch_size": 200}, {}, {"strength": 0.03}, {"strength": 0.3, "scale": "filter"}),
            strict=True,
        )
    }
    make_comparison(path, arms, seeds=tuple(range(seeds)), epochs=epochs)
    runs = [path / slug(name) / "0" for name in arms]
    measured = []
    for index, run in enumerate(runs):
        measured += [noise(run, 0.01, 0.01 + 0.02 * index), noise(run, 0.03, 0.2 - 0.05 * index)]
        measured += [ball(run, 0.01 * (index + 1)), hessian(run, 1.0 + index)]
    make_sharpness(path / "sharpness", measured)
    for index, run in enumerate(runs):
        make_plane(path / f"plane-{index}", run, size=size, height=1.0 + index, wild=index == 0)
    make_line(path / "line", runs[1], runs[2])
    return path
