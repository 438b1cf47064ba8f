"""Why a run does worse than it should: facts of its end, and short trials of what may help."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smoothout import _checks
from smoothout.gradient_noise import noise_scale
from smoothout.intervals import mean_interval
from smoothout.measuring.subject import Place, Sampling, load
from smoothout.measuring.verdict import verdicts
from smoothout.results.diagnosis import Diagnosis, Effect, Facts
from smoothout.results.gradient_noise import NoiseScale
from smoothout.results.runs import Risk, RunResult
from smoothout.results.scan import Scan
from smoothout.risk import risk
from smoothout.sharpness.scan import scan
from smoothout.train import checkpoint, methods, regime
from smoothout.train.comparison import Arm, Outcome, run_all, start
from smoothout.train.config import Settings
from smoothout.train.data.splits import in_order
from smoothout.train.device import choose
from smoothout.train.run import Run, prepare

AS_IT_IS = "as it is"
_STEP_OF_RATE, _STEP_OF_DECAY, _FIRST_DECAY = 2.0, 3.0, 1e-4
_WARM_UP = 0.05  # of the updates
AGAIN = ("data_dir", "download", "input_size", "model_config", "num_classes")  # as they were named for this command
_BATCHES = 8  # for the gradient noise scale


@dataclass(frozen=True)
class Trials:
    """The short trials.

    Attributes:
        epochs: Of each; None for those of the run.
        seeds: Of each, paired.
        workers: Processes at the same time.
    """

    epochs: int | None = None
    seeds: tuple[int, ...] = (300, 301, 302)
    workers: int = 1

    def __post_init__(self) -> None:
        _checks.whole("workers", self.workers, at_least=1)
        if self.epochs is not None:
            _checks.whole("epochs", self.epochs, at_least=1)


def diagnose(
    path: Path, folder: Path, settings: Settings, trials: Trials, samples: int, told: Callable[[int, int], None]
) -> Diagnosis:
    """Diagnose a run.

    Args:
        path: Its folder, or a checkpoint's.
        folder: Of the trials, where finished ones are kept.
        settings: Of the run; code of the user's named again.
        trials: No seeds for none of them.
        samples: Of the training samples, for the scans.
        told: Is told how many trials of how many are done.
    """
    if trials.seeds and trials.epochs not in (None, settings.schedule.epochs):
        _refuse_shorter_regime(settings, trials.epochs)
    facts = facts_of(path, settings)
    scans = tuple(_scans(path, settings, samples))
    share = 1.0 if trials.epochs is None else trials.epochs / settings.schedule.epochs
    updates = round(share * facts.planned)
    changes = dict(steps(settings, updates, share, scans)) if trials.seeds else {}
    effects = tuple(_effects(folder, settings, changes, trials, told)) if changes else ()
    found = verdicts(facts, scans, effects, trial_updates=updates, displaced=_displaced(settings))
    return Diagnosis(facts, scans, effects, found, updates)


def _displaced(settings: Settings) -> bool:
    """Whether the run has noise already, or what goes in its place."""
    return settings.noise.on or settings.rival.method in methods.RHO


def _refuse_shorter_regime(settings: Settings, epochs: int | None) -> None:
    """A regime names epochs; a shorter trial would end before it gets there."""
    if regime.OF_MODEL in prepare(settings).plan.phases[0].sources.get("course", ""):
        raise ValueError(
            f"epochs is {epochs} and the model {settings.network.model} has a regime for {settings.schedule.epochs}, "
            f"which a shorter trial would cut off. Leave --epochs out, or train with --no-regime."
        )


def facts_of(path: Path, settings: Settings) -> Facts:
    """Where a run ended, and the gradient noise at its start and end."""
    run = prepare(settings)
    at_start = _noise_scale(run)
    place = checkpoint.find(_last(path))
    state = checkpoint.load_state(place)
    checkpoint.load_weights(place, run.network)
    at_end = _noise_scale(run)
    train, holdout = (_risk(run, split) for split in ("train", "holdout"))
    return Facts(
        updates=state.get("update", state.get("epoch", 0) * run.plan.updates_per_epoch),
        planned=run.plan.total_updates,
        samples_per_update=min(settings.batches.batch_size * settings.batches.accumulation, len(run.dataset.train)),
        train_accuracy=100 - train.error1,
        holdout_accuracy=100 - holdout.error1,
        train_loss=train.loss,
        holdout_loss=holdout.loss,
        at_start=at_start,
        at_end=at_end,
    )


def _last(path: Path) -> Path:
    """The checkpoint of a run's end."""
    last = path / "checkpoints" / "last"
    return last if last.exists() else path


def _risk(run: Run, split: str) -> Risk:
    return risk(run.model, in_order(run.dataset.filled(split)), loss=run.loss, prepare=run.dataset.normalise)


def _noise_scale(run: Run) -> NoiseScale:
    """Of some batches as training sees them."""
    seed, batches = run.settings.schedule.seed, run.settings.batches
    size = min(batches.batch_size, len(run.dataset.train))
    if size < 4:
        doubt = f"not measured: a batch of {size} samples cannot be cut into ghost batches of two"
        return NoiseScale(math.nan, math.nan, math.nan, math.nan, size, 0, 0, (doubt,))
    ghost = batches.ghost_batch_size
    if size < 2 * ghost:
        ghost = max(2, size // 8)  # a batch that is one ghost batch is cut for this alone
    return noise_scale(run.network, _batches(run), run.training_loss, ghost_batch_size=ghost, seed=seed)


def _batches(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(run.dataset.train), generator=torch.Generator().manual_seed(0))
    size = min(run.settings.batches.batch_size, len(order))
    sizes = [size] * (len(order) // size)  # whole batches only
    loaded = run.dataset.train.batches(sizes, order[: sum(sizes)], augment=0)
    for inputs, targets in itertools.islice(loaded, _BATCHES):
        yield run.dataset.normalise(run.dataset.augment(inputs)), targets


def _scans(path: Path, settings: Settings, samples: int) -> Iterator[Scan]:
    flat = settings.flat()
    named = {name: flat[name] for name in ("model", "dataset", *AGAIN) if flat[name] not in (None, False)}
    given = tuple(sorted(named.items()))
    place = Place(_last(path), ("train",), Sampling(samples=samples), str(choose(settings.schedule.device)), given)
    subject = load(place)
    for scale in ("none", "filter"):
        yield scan(subject.network, subject.samples["train"], subject.loss, scale=scale, classes=subject.classes)


def steps(
    settings: Settings, updates: int, share: float, scans: Sequence[Scan]
) -> Iterator[tuple[str, tuple[str, Settings]]]:
    """What is tried: (name, (kind, settings)).

    Args:
        settings: Of the run.
        updates: Of a trial.
        share: Of the run that a trial is.
        scans: Of the run's last weights.
    """
    plan = prepare(settings).plan
    # The multiplier stretches the regime, too.
    longer = settings.replace(regime_multiplier=2 * settings.schedule.regime_multiplier)
    yield "twice the epochs", ("updates", longer)
    first = plan.phases[0]
    for factor in (_STEP_OF_RATE, 1 / _STEP_OF_RATE):
        yield f"learning rate x {factor:g}", ("tuning", settings.replace(lr=first.lr * factor))
    decay = first.arguments.get("weight_decay")
    if decay:
        for factor in (_STEP_OF_DECAY, 1 / _STEP_OF_DECAY):
            yield f"weight decay x {factor:.3g}", ("tuning", settings.replace(weight_decay=decay * factor))
    elif decay is not None:
        yield f"weight decay {_FIRST_DECAY:g}", ("tuning", settings.replace(weight_decay=_FIRST_DECAY))
    if settings.optimization.warmup_steps == 0:
        warm = math.ceil(_WARM_UP * updates)
        if warm > 1:  # over a single update it would be none
            yield f"warm-up over {warm} updates", ("tuning", settings.replace(warmup_steps=round(warm / share)))
    yield from _noises(settings, scans)


def _noises(settings: Settings, scans: Sequence[Scan]) -> Iterator[tuple[str, tuple[str, Settings]]]:
    """Without the noise that there is, or with noise in the middle of the ranges."""
    if settings.noise.on:
        yield "without its noise", ("clean", settings.replace(strength=0.0, clean_share=0.0, method=_clean(settings)))
    if not _displaced(settings):
        for found in scans:
            if not math.isnan(found.low):
                middle = float(f"{math.sqrt(found.low * found.high):.2g}")
                changed = settings.replace(strength=middle, scale=found.scale)
                yield f"noise {middle:g}, scale {found.scale}", ("noise", changed)


def _clean(settings: Settings) -> str:
    """The method, or plain training where the method is a noise."""
    return "smoothout" if settings.rival.method in methods.NOISES else settings.rival.method


def _effects(
    folder: Path,
    settings: Settings,
    changes: dict[str, tuple[str, Settings]],
    trials: Trials,
    told: Callable[[int, int], None],
) -> Iterator[Effect]:
    """Train the run as it is and with each change, on the same seeds."""
    made = {AS_IT_IS: ("", settings), **changes}
    arms = [Arm(name, _short(each, settings, trials), None) for name, (_, each) in made.items()]
    # Other trials, say of other epochs, have a folder of their own beside.
    text = json.dumps([[arm.settings.to_json() for arm in arms], trials.seeds])
    folder = folder / hashlib.sha256(text.encode()).hexdigest()[:8]
    start(folder, arms, trials.seeds, overwrite=False, resume=folder.exists())
    count = itertools.count(1)
    outcomes = run_all(
        folder, arms, trials.seeds, trials.workers, lambda _: told(next(count), len(arms) * len(trials.seeds))
    )
    base = _by_seed(outcomes, AS_IT_IS)
    if not base:
        raise ValueError(
            f"the run as it is failed with each of the seeds {trials.seeds}, so nothing can be compared with it: "
            f"{_errors(outcomes, AS_IT_IS)[0]}"
        )
    for name, (kind, each) in changes.items():
        found = _by_seed(outcomes, name)
        pairs = [(found[seed], base[seed]) for seed in sorted(found.keys() & base.keys())]
        yield Effect(
            kind,
            name,
            {key: value for key, value in each.flat().items() if value != settings.flat()[key]},
            mean_interval([one.holdout_accuracy_last - other.holdout_accuracy_last for one, other in pairs]),
            mean_interval([one.train_accuracy_last - other.train_accuracy_last for one, other in pairs]),
            _errors(outcomes, name),
            each.noise.scale if kind == "noise" else None,
        )


def _short(changed: Settings, settings: Settings, trials: Trials) -> Settings:
    """Of a trial: its epochs in place of the run's, evaluated at the end only."""
    share = 1.0 if trials.epochs is None else trials.epochs / settings.schedule.epochs
    epochs = max(1, round(changed.schedule.epochs * share))
    milestones = tuple(sorted({max(1, round(each * share)) for each in changed.optimization.milestones}))
    warm, begin = changed.optimization.warmup_steps, changed.noise.start_step
    return changed.replace(
        epochs=epochs,
        milestones=milestones,
        warmup_steps=min(warm, max(1, round(warm * share))),
        start_step=min(begin, max(1, round(begin * share))),
        evaluate_every=epochs,
        checkpoint_every=epochs,
        save_all=False,
    )


def _errors(outcomes: Sequence[Outcome], arm: str) -> tuple[str, ...]:
    """Of the runs of an arm that failed."""
    return tuple(f"seed {each.seed}: {each.error}" for each in outcomes if each.arm == arm and each.error is not None)


def _by_seed(outcomes: Sequence[Outcome], arm: str) -> dict[int, RunResult]:
    """The finished runs of an arm; one that diverged is missing."""
    return {each.seed: each.result for each in outcomes if each.arm == arm and each.result is not None}
