"""What a run is, in words, for the log and the screen."""

import warnings
from typing import Any

from smoothout import schedules
from smoothout.train import methods
from smoothout.train.plan import Plan
from smoothout.train.regime import Phase
from smoothout.train.run import Run
from smoothout.train.user_code import is_user_code

_CARRIED = ("regime", "input_transform", "criterion", "quiet_parameters")
_SHOWN = 8


def describe(run: Run) -> list[str]:
    """Lines that say what is trained, how, and what was taken from where."""
    return [
        _data(run),
        _model(run),
        *_processes(run),
        *_updates(run),
        *_optimizer(run.plan),
        _noise(run),
        *_average(run),
    ]


def _data(run: Run) -> str:
    data, dataset = run.settings.data, run.dataset
    where = "" if is_user_code(data.dataset) else f" (data folder: {data.folder})"
    return (
        f"data: {data.dataset}{where}, {len(dataset.train)} train, {len(dataset.holdout)} hold-out, "
        f"{len(dataset.test)} test samples of {'x'.join(map(str, dataset.input_shape))}, {dataset.classes} classes"
    )


def _model(run: Run) -> str:
    network, schedule = run.settings.network, run.settings.schedule
    weights = sum(parameter.numel() for parameter in run.network.parameters())
    line = f"model: {network.model}, {weights:,} weights, {run.outputs} outputs, on {run.accelerator.device}"
    carried = [name for name in _CARRIED if getattr(run.network, name, None) is not None]
    if carried:
        line += f"; carries its own {', '.join(carried)}"
    line += f"; starts from {network.weights}" if network.weights else ""
    line += f"; compiled, mode {schedule.compile}" if schedule.compile else ""
    return line + ("; channels_last" if schedule.channels_last else "")


def _processes(run: Run) -> list[str]:
    size = run.ranks.size
    if size == 1:
        return []
    pieces = "ghost batches" if run.settings.batches.noise_per == "ghost_batch" else "batches of an update"
    return [f"processes: {size}, among which the {pieces} are shared out in turn"]


def _updates(run: Run) -> list[str]:
    plan, batches, schedule = run.plan, run.settings.batches, run.settings.schedule
    ghosts = -(-batches.batch_size // batches.ghost_batch_size) * batches.accumulation
    how = f" in about {ghosts} ghost batches of {batches.ghost_batch_size}"
    if batches.noise_per == "batch":
        how = f", each batch with one noise in one pass, BatchNorm by ghost batches of {batches.ghost_batch_size}"
    epochs = f"epochs: {plan.epochs}"
    if plan.stretch > 1:
        epochs += f" = {schedule.epochs} x {plan.stretch} by regime adaptation"
    if schedule.start_epoch:
        epochs += f", of which {schedule.start_epoch} count as done"
    return [
        f"updates: {plan.updates_per_epoch} an epoch, {plan.total_updates} in all, of {batches.accumulation} x "
        f"{batches.batch_size} samples{how}",
        epochs,
    ]


def _optimizer(plan: Plan) -> list[str]:
    """What is in force in the first epoch, and what changes later; rates with the factor of the rule."""
    options, start = plan.settings.optimization, plan.settings.schedule.start_epoch
    first = plan.phases[start]
    rate = (
        f"learning rate: {_text(first.lr * plan.lr_factor)} = {_text(first.lr)} ({first.sources['lr']}) by rule "
        f"{options.lr_rule!r} from base batch {plan.base_batch}"
    )
    if options.warmup_steps:
        rate += f", warm-up over {options.warmup_steps} updates (--warmup-steps)"
    if options.lr_schedule in ("cosine", "constant"):
        rate += f", {options.lr_schedule} (--lr-schedule)"
    pairs = zip(plan.phases[start:], plan.phases[start + 1 :], strict=False)
    changes = [
        f"from epoch {epoch} {_change(before, after, plan.lr_factor)}"
        for epoch, (before, after) in enumerate(pairs, start + 2)
        if before != after
    ]
    lines = [f"optimizer: {', '.join([_sourced(first, 'optimizer', first.optimizer), *_arguments(first)])}", rate]
    if changes:
        lines.append(f"then: {'; '.join(changes[:_SHOWN])}{'; ...' if len(changes) > _SHOWN else ''}")
    return lines


def _change(before: Phase, after: Phase, factor: float) -> str:
    """What changes between two epochs; with another optimizer, all of its arguments."""
    rate = [] if before.lr == after.lr else [f"lr {_text(after.lr * factor)} ({after.sources['course']})"]
    if before.optimizer != after.optimizer:
        return ", ".join([_sourced(after, "optimizer", after.optimizer), *rate, *_arguments(after)])
    changed = [name for name, value in after.arguments.items() if before.arguments.get(name) != value]
    return ", ".join(rate + [_sourced(after, name, f"{name} {_text(after.arguments[name])}") for name in changed])


def _arguments(phase: Phase) -> list[str]:
    return [_sourced(phase, name, f"{name} {_text(value)}") for name, value in sorted(phase.arguments.items())]


def _sourced(phase: Phase, name: str, text: str) -> str:
    return f"{text} ({phase.sources[name]})"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _average(run: Run) -> list[str]:
    """How far a moving average reaches back, marked where that is too far for the run."""
    if run.settings.rival.method != "ema":
        return []
    decay = run.settings.rival.average_decay
    decay = methods.AVERAGE_DECAY if decay is None else decay
    reach, updates = 1 / (1 - decay), run.plan.total_updates
    line = f"average: decay {decay:g}, over about {reach:.0f} of {updates} updates"
    return [line + (", which holds early weights to the end: lower --average-decay" if reach > updates / 4 else "")]


def _noise(run: Run) -> str:
    noise, smoother = methods.noise_of(run.settings), run.smoother
    if not noise.on:
        method = run.settings.rival.method
        if method not in methods.RHO:
            return "noise: off"
        given = run.settings.rival.rho
        rho = f"{methods.RHO[method]:g} (default)" if given is None else f"{given:g} (--rho)"
        passes = "two passes" if method in methods.TWO_PASSES else "one pass"
        return f"noise: off; method: {method}, rho {rho}, {passes} an update"
    summary = smoother.summary()
    if summary.weights == 0:
        warnings.warn(
            f"strength is {noise.strength} and no weight gets noise: all of {run.settings.network.model} is "
            f"BatchNorm, frozen or quiet. See SmoothOut.summary().",
            RuntimeWarning,
            stacklevel=2,
        )
    if noise.strength == "auto":
        return (
            f"noise: strength found so that the {noise.auto_measure} of losses is {noise.auto_target:g}, from "
            f"{smoother.strength:.3g} on, scale {noise.scale}, {noise.distribution}; {summary.weights:,} weights, "
            f"r = {summary.relative_noise:.3g} at the start"
        )
    factor = schedules.resolve(
        noise.noise_schedule,
        anneal_index=noise.anneal_index,
        tanh_scale=noise.tanh_scale,
        cosine_gain=noise.cosine_gain,
        total_steps=run.plan.total_updates,
    )
    # Every schedule that has a name rises or falls all the way.
    most = noise.strength * max(factor(noise.start_step), factor(run.plan.total_updates - 1))
    rising = "" if most == noise.strength else f" (at most {most:.3g} in the run)"
    return (
        f"noise: strength {noise.strength:g}{rising}, scale {noise.scale}, {noise.distribution}, "
        f"{noise.noise_schedule}; {summary.weights:,} weights, r = {summary.relative_noise:.3g} at the start"
    )
