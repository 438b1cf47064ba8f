"""The training loop."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smoothout.large_batch import partition
from smoothout.momentum_sam import MomentumSAM
from smoothout.noise.philox import fold
from smoothout.ranks import Ranks
from smoothout.results.checkpoints import place_of
from smoothout.results.noise import NoiseSummary
from smoothout.results.runs import EpochMetrics, Risk, RunResult
from smoothout.risk import errors, risk
from smoothout.running_stats import PartialRunningStats
from smoothout.train import agreement, checkpoint, methods, passes, regime, trackers
from smoothout.train.data.splits import EVALUATION_BATCH, in_order
from smoothout.train.description import describe
from smoothout.train.regime import Phase
from smoothout.train.run import Run, load_weights, set_start
from smoothout.train.run_folder import RunFolder

# What tells the uses of a run's seed apart; the noise has its own in run.py.
_ORDER, _STEP, _STREAM_AUGMENT = 2, 3, 4
_SAME_MACHINES = (
    "Replicas have drifted apart: use the same kind of processor, versions and number of threads everywhere, and keep "
    "what a forward pass changes, other than BatchNorm's statistics, out of the model."
)
_NOT_EVALUATED = Risk(math.nan, math.nan, math.nan, 0)


class Watcher(Protocol):
    """Is told how training goes; the commands show it."""

    def started(self, lines: list[str], updates: int) -> None:
        """Before the first update; ``updates`` are still to be made."""

    def updated(self, seen: Callable[[], Risk]) -> None:
        """After each update; ``seen`` gives loss and errors of the epoch so far, at the price of waiting for them."""

    def finished_epoch(self, row: EpochMetrics, best: bool) -> None:
        """After each epoch."""


class Unwatched:
    """Nobody looks, as in all processes but the first."""

    def started(self, lines: list[str], updates: int) -> None:
        """Nothing."""

    def updated(self, seen: Callable[[], Risk]) -> None:
        """Nothing."""

    def finished_epoch(self, row: EpochMetrics, best: bool) -> None:
        """Nothing."""


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds besides weights, optimizer, scaler and smoother."""

    epoch: int = 0
    update: int = 0
    best_epoch: int = 0
    best_holdout: tuple[float, float] = (math.inf, math.inf)
    best_test_error: float = math.nan
    rows: list[EpochMetrics] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """What a process computes of an update.

    Attributes:
        samples: Of the update, over all processes.
        sizes: Of its pieces, the ghost batches or batches that get a noise and a pass of their own, over all processes.
        own: Those of this process, each with its index in ``sizes``, which names its noise, dropout and augmentation.
    """

    samples: int
    sizes: list[int]
    own: list[tuple[int, passes.Piece]]


def train(run: Run, folder: RunFolder | None, watcher: Watcher, *, resume: bool = False) -> RunResult:
    """Train a run fresh from :func:`prepare`; write metrics and checkpoints to the folder.

    With ``resume`` a run goes on after its last checkpoint, and ends with the bits it would have ended with. Of several
    processes all call this, the first with the folder, which no other reads or writes; all return the same result.

    Raises:
        FloatingPointError: If the training loss is no longer finite.
        ValueError: If processes come to differ.
    """
    if (folder is None) == run.ranks.first:
        raise ValueError(
            f"the folder is {folder} in process {run.ranks.rank}; expected one in process 0, None elsewhere."
        )
    lines = describe(run)  # of the start, also when resumed
    progress = _resume(run, folder) if resume else _begin(run, folder)
    watcher.started(lines, run.plan.total_updates - progress.update)
    try:
        if folder is not None:
            trackers.start(run.accelerator, run.settings, folder.path.name)
        while progress.epoch < run.plan.epochs:
            row = _epoch(run, progress, watcher)
            progress.rows.append(row)
            best = _keep(run, folder, progress)
            trackers.log(run.accelerator, asdict(row), row.epoch)
            watcher.finished_epoch(row, best)
    finally:
        trackers.end(run.accelerator)
    result = _result(run, progress)
    if folder is not None:
        folder.write_result(result)
    return result


def _epoch(run: Run, progress: Progress, watcher: Watcher) -> EpochMetrics:
    """Train one epoch and evaluate."""
    settings, plan = run.settings, run.plan
    began = time.perf_counter()
    seen = Seen()
    _enter_phase(run, plan.phases[progress.epoch])
    run.model.train()
    with passes.normalised(run.network, settings.batches):
        lr, noise = _train(run, progress, seen, watcher)
    trained = time.perf_counter() - began
    progress.epoch += 1

    if run.ranks.size > 1:
        for network in dict.fromkeys((run.network, _kept(run))):
            run.ranks.same(agreement.of_replica(network), _SAME_MACHINES)
        run.ranks.same({"the strength": run.smoother.strength}, _SAME_MACHINES)
    train_risk = _finite(seen.gathered(run.ranks, run.accelerator.device).risk(), progress)
    evaluated = progress.epoch % settings.schedule.evaluate_every == 0 or progress.epoch == plan.epochs
    if run.average is not None and (evaluated or settings.schedule.save_all or _saves(run, progress.epoch)):
        run.average.ready(run.network, lambda: _inputs(run))
    holdout, test = (_risk(run, split) if evaluated else _NOT_EVALUATED for split in ("holdout", "test"))
    return EpochMetrics(
        progress.epoch,
        *(train_risk.loss, train_risk.error1, train_risk.error5),
        *(holdout.loss, holdout.error1, holdout.error5),
        *(test.loss, test.error1, test.error5),
        lr=lr,
        strength=noise.amplitude,
        r=noise.relative_noise,
        updates=progress.update,
        distance=_distance(run),
        seconds=time.perf_counter() - began,
        samples_per_second=len(run.dataset.train) / trained,
    )


def _train(run: Run, progress: Progress, seen: "Seen", watcher: Watcher) -> tuple[float, NoiseSummary]:
    """Make the updates of an epoch; returns rate and noise of the last one."""
    plan = run.plan
    for part in _updates(run, progress.epoch):
        lr = plan.lr(progress.update)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        last = (progress.update + 1) % plan.updates_per_epoch == 0
        if last:
            noise = run.smoother.summary()
        _update(run, seen, progress.update, part)
        if run.average is not None:
            run.average.updated(run.network, progress.epoch, last)
        progress.update += 1
        watcher.updated(seen.risk)
    return lr, noise


def _update(run: Run, seen: "Seen", update: int, part: Part) -> None:
    """Make one update of the weights."""

    def learn(first: bool) -> None:
        with PartialRunningStats(run.network, run.ranks) if run.ranks.size > 1 else nullcontext() as stats:
            _gradient(run, seen if first else None, update, part, stats)

    def clip() -> None:
        if run.settings.optimization.clip > 0:
            run.accelerator.clip_grad_norm_(run.model.parameters(), run.settings.optimization.clip)

    methods.update(run.network, run.optimizer, learn, clip)
    run.optimizer.zero_grad()
    run.smoother.step()
    if run.perturbing is not run.smoother:
        run.perturbing.step()


def _gradient(run: Run, seen: "Seen | None", update: int, part: Part, stats: PartialRunningStats | None) -> None:
    """Add the gradients of all pieces, each with noise of its own; those of other processes join the last one's."""
    copies = run.settings.batches.copies
    calls = [passes.calls(run.settings.batches, size) for size in part.sizes]
    done, left = 0, copies * len(part.own)  # pieces of all processes, passes of this one
    if part.own:
        # Both passes of SAM start at the same stream.
        first = 0 if run.settings.noise.sync == "shared" else run.ranks.rank
        with run.perturbing.perturbed(stream=first) as noise:
            for index, (inputs, targets) in noise.each(part.own, copies=copies):
                if stats is not None:
                    stats.skip(sum(calls[done:index]))
                done, left = index + 1, left - 1
                share = len(targets) / part.samples / copies
                with nullcontext() if left == 0 else run.learner.apart():
                    _learn(run, seen, update, index, inputs, targets, share)
    else:
        run.accelerator.backward(run.learner.nothing())
    if stats is not None:
        stats.skip(sum(calls[done:]))
        if not run.looked:
            stats.refuse_other_calls(sum(calls[index] for index, _ in part.own))
            run.looked = True


def _learn(
    run: Run, seen: "Seen | None", update: int, index: int, inputs: Tensor, targets: Tensor, share: float
) -> None:
    """Add the share of one piece, a ghost batch or a batch, to the gradient, with the noise that the weights carry."""
    # Dropout and augmentation become functions of (seed, update, piece).
    _seed(fold(run.settings.schedule.seed, _STEP, update, index) >> 1, run.accelerator.device)
    prepared = run.dataset.normalise(run.dataset.augment(inputs))
    logits = run.learner(prepared)
    loss = run.training_loss(logits, targets)
    with run.learner.gradients_kept():
        run.accelerator.backward(loss * share)
    run.smoother.observe(loss)
    if seen is not None:
        seen.add(logits.detach(), targets, loss.detach())


def _seed(seed: int, device: torch.device) -> None:
    """Seed torch's generators."""
    # torch.manual_seed would queue a call, stack trace and all, as long as CUDA is not in use.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _updates(run: Run, epoch: int) -> Iterator[Part]:
    """For each update of an epoch, what this process computes of it; it loads only that."""
    seed, batches, ranks = run.settings.schedule.seed, run.settings.batches, run.ranks
    generator = torch.Generator().manual_seed(fold(seed, _ORDER, epoch) >> 1)
    order = torch.randperm(len(run.dataset.train), generator=generator)
    sizes = passes.updates(batches, run.plan.batches)
    pieces = iter(torch.split(order, [size for update in sizes for size in update]))
    own = [piece for update in sizes for piece in ranks.own(list(itertools.islice(pieces, len(update))))]
    loaded = run.dataset.train.batches(
        [len(piece) for piece in own],
        torch.cat(own) if own else order[:0],
        augment=fold(seed, _STREAM_AUGMENT, epoch),
        ahead=2 * len(ranks.own(range(len(sizes[0])))),  # while one update's are used, the next one's are read
    )
    for update in sizes:
        indices = ranks.own(range(len(update)))
        yield Part(sum(update), update, list(zip(indices, itertools.islice(loaded, len(indices)), strict=True)))


class Seen:
    """Loss and errors as training sees them, summed on the device without waiting for it."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._samples = 0

    def add(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Count the samples of a pass."""
        first, fifth = errors(logits, targets)
        sums = torch.stack([loss.double() * len(targets), first.double(), fifth.double()])
        self._sums = sums if self._sums is None else self._sums + sums
        self._samples += len(targets)

    def gathered(self, ranks: Ranks, device: torch.device) -> "Seen":
        """Of all processes together."""
        if ranks.size > 1:
            own = torch.zeros(4, dtype=torch.float64, device=device)
            if self._sums is not None:
                own[:3], own[3] = self._sums, self._samples
            *sums, samples = ranks.sum(own)
            self._sums, self._samples = torch.stack(sums), int(samples)
        return self

    def risk(self) -> Risk:
        """Means so far."""
        if self._sums is None:
            raise ValueError("no samples were trained on; expected at least one.")
        loss, first, fifth = (self._sums / self._samples).tolist()
        return Risk(loss, 100 * first, 100 * fifth, self._samples)


def _finite(seen: Risk, progress: Progress) -> Risk:
    """Raise if training has diverged."""
    if not math.isfinite(seen.loss):
        raise FloatingPointError(
            f"the training loss is {seen.loss} in epoch {progress.epoch}, update {progress.update}: training has "
            f"diverged. Lower --lr or --strength, or raise --warmup-steps."
        )
    return seen


def _enter_phase(run: Run, phase: Phase) -> None:
    """Set the optimizer as the regime says; its state is kept unless its class changes."""
    if regime.class_of(run.optimizer.optimizer) != phase.optimizer:
        sam = methods.sam_arguments(run.settings.rival)
        made = regime.make_optimizer(phase, run.network.parameters(), phase.lr, sam)
        run.accelerator._optimizers.clear()  # or a gradient scaler would go on unscaling for the old one
        run.optimizer = run.accelerator.prepare(made)
        if isinstance(run.perturbing, MomentumSAM):
            run.perturbing.optimizer = made
    for group in run.optimizer.param_groups:
        group.update(phase.arguments)


def _risk(run: Run, split: str) -> Risk:
    """Of the clean weights, or of the averaged ones, without augmentation; processes share the batches."""
    samples = run.dataset.split(split)
    return risk(
        _evaluated(run),
        in_order(samples, ranks=run.ranks),
        loss=run.loss,
        prepare=run.dataset.normalise,
        ranks=run.ranks,
        count=len(partition(len(samples), EVALUATION_BATCH)),
    )


def _inputs(run: Run) -> Iterator[Tensor]:
    """Of the training samples, as evaluation sees them."""
    return (run.dataset.normalise(inputs) for inputs, _ in in_order(run.dataset.filled("train")))


def _evaluated(run: Run) -> nn.Module:
    """What is evaluated."""
    return run.model if run.average is None else run.average.network


def _kept(run: Run) -> nn.Module:
    """What checkpoints hold."""
    return run.network if run.average is None else run.average.network


def _distance(run: Run) -> float:
    squares = [
        (parameter.detach().double() - start.double()).square().sum()
        for parameter, start in zip(run.network.parameters(), run.initial, strict=True)
    ]
    return float(torch.stack(squares).sum().sqrt())


def _begin(run: Run, folder: RunFolder | None) -> Progress:
    if folder is not None:
        checkpoint.save(folder.checkpoint("initial"), run.network, run.settings, {})
    return _start(run)


def _start(run: Run) -> Progress:
    """Where a run begins: at its first epoch, or at --start-epoch with the updates before it counted as made."""
    epoch = run.settings.schedule.start_epoch
    update = epoch * run.plan.updates_per_epoch
    run.smoother.load_state_dict(run.smoother.state_dict() | {"updates": update})
    return Progress(epoch=epoch, update=update)


def _keep(run: Run, folder: RunFolder | None, progress: Progress) -> bool:
    """Note whether the epoch was the best, and write metrics and checkpoints."""
    row = progress.rows[-1]
    score = (row.holdout_error1, row.holdout_loss)
    best = score < progress.best_holdout
    if best:
        progress.best_holdout, progress.best_epoch, progress.best_test_error = score, row.epoch, row.test_error1
    if folder is not None:
        for name, wanted in (("best", best), (f"epoch-{row.epoch}", run.settings.schedule.save_all)):
            if wanted:
                checkpoint.save(folder.checkpoint(name), _kept(run), run.settings, {"epoch": row.epoch})
        folder.write_metrics(progress.rows)
        if _saves(run, row.epoch):
            checkpoint.save(folder.checkpoint("last"), _kept(run), run.settings, _state(run, progress))
    return best


def _saves(run: Run, epoch: int) -> bool:
    """Whether the last checkpoint is replaced after an epoch, counted from 1."""
    schedule = run.settings.schedule
    return epoch % schedule.checkpoint_every == 0 or epoch == run.plan.epochs


def _state(run: Run, progress: Progress) -> dict[str, Any]:
    scaler = run.accelerator.scaler
    return {
        "epoch": progress.epoch,
        "update": progress.update,
        "best_epoch": progress.best_epoch,
        "best_holdout": list(progress.best_holdout),
        "best_test_error": progress.best_test_error,
        "optimizer": run.optimizer.state_dict(),
        "smoother": run.smoother.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        **_state_of_methods(run),
    }


def _state_of_methods(run: Run) -> dict[str, Any]:
    """What only some methods have."""
    state: dict[str, Any] = {}
    if isinstance(run.perturbing, MomentumSAM):
        state["momentum_sam"] = run.perturbing.state_dict()
    if run.average is not None:
        state["network"] = run.network.state_dict()
        state["averaged"] = int(run.average.model.n_averaged)
    return state


def _resume_methods(run: Run, state: dict[str, Any]) -> None:
    """Bring back what :func:`_state_of_methods` gave; the averaged weights are the checkpoint's."""
    if isinstance(run.perturbing, MomentumSAM):
        run.perturbing.load_state_dict(state["momentum_sam"])
    if run.average is not None:
        run.average.network.load_state_dict(run.network.state_dict())
        run.average.model.n_averaged.fill_(state["averaged"])
        run.network.load_state_dict(state["network"])


def _resume(run: Run, folder: RunFolder | None) -> Progress:
    """Bring everything to where the last checkpoint was made."""
    initial, last = (None if folder is None else place_of(folder.checkpoint(name)) for name in ("initial", "last"))
    if not run.ranks.from_first(initial is not None):
        set_start(run)
        return _begin(run, folder)  # interrupted before anything was written
    load_weights(run, initial)
    run.initial = [parameter.detach().clone() for parameter in run.network.parameters()]
    if not run.ranks.from_first(last is not None):
        return _start(run)  # interrupted before the first checkpoint
    load_weights(run, last)
    state = run.ranks.from_first({} if last is None else checkpoint.load_state(last))
    rows = run.ranks.from_first([] if folder is None else folder.metrics())
    _enter_phase(run, run.plan.phases[state["epoch"] - 1])  # of the class that made the state
    run.optimizer.load_state_dict(state["optimizer"])
    _resume_methods(run, state)
    run.smoother.load_state_dict(state["smoother"])
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    error, loss = state["best_holdout"]
    return Progress(
        epoch=state["epoch"],
        update=state["update"],
        best_epoch=state["best_epoch"],
        best_holdout=(error, loss),
        best_test_error=state["best_test_error"],
        rows=[row for row in rows if row.epoch <= state["epoch"]],
    )


def _result(run: Run, progress: Progress) -> RunResult:
    last = progress.rows[-1]
    train_risk = _risk(run, "train")
    return RunResult(
        seed=run.settings.schedule.seed,
        epochs=progress.epoch,
        updates=progress.update,
        best_epoch=progress.best_epoch,
        train_accuracy_last=100 - train_risk.error1,
        holdout_accuracy_last=100 - last.holdout_error1,
        test_accuracy_last=100 - last.test_error1,
        holdout_accuracy_best=100 - progress.best_holdout[0],
        test_accuracy_best=100 - progress.best_test_error,
        train_loss_last=train_risk.loss,
        holdout_loss_last=last.holdout_loss,
        test_loss_last=last.test_loss,
        seconds=sum(row.seconds for row in progress.rows),
    )
