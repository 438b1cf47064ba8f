"""A run before its first step: everything that it needs, made from its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn

from smoothout.launch import join, launched
from smoothout.noise.philox import fold
from smoothout.ranks import Ranks, ranks_of
from smoothout.smoothing import SmoothOut
from smoothout.train import agreement, checkpoint, device, methods, passes, regime, trackers
from smoothout.train.config import Settings
from smoothout.train.data.splits import DataSet
from smoothout.train.plan import Plan, make_plan
from smoothout.train.problem import Loss, pose
from smoothout.weights import exclude_batch_norm, exclude_nothing

NOISE = 5  # tells the noise from the other uses of a run's seed, which are in the loop


@dataclass
class Run:
    """The objects of a run."""

    settings: Settings
    plan: Plan
    dataset: DataSet
    network: nn.Module  # the user's; `model` is the same one as Accelerate runs it, `learner` as training does
    model: nn.Module
    learner: passes.Learner
    optimizer: Any
    loss: Loss
    training_loss: Loss
    smoother: SmoothOut
    perturbing: methods.Perturbing  # the smoother, or Momentum-SAM
    average: methods.Average | None
    accelerator: Accelerator
    ranks: Ranks
    initial: list[Tensor]
    outputs: int
    looked: bool = False  # whether the first update has shown how often each BatchNorm is called


def prepare(
    settings: Settings,
    *,
    track: Sequence[trackers.Tracker] = (),
    logging_dir: Path | None = None,
    resume: bool = False,
    process_group: Any = None,
) -> Run:
    """Make everything that a run needs; equal settings give equal objects.

    Args:
        settings: Of the run.
        track: Trackers that are told every epoch's row.
        logging_dir: Where those that write files do so.
        resume: Whether the run goes on; then the weights come from its own checkpoints.
        process_group: Of the processes that train together; None for all that were started.

    Raises:
        ValueError: If the processes differ in their settings, data or versions.
    """
    if settings.data.holdout == 0:
        raise ValueError("holdout is 0; training chooses its best epoch on held-out samples. Leave --holdout out.")
    methods.check(settings)
    everyone = join()
    ranks = everyone if process_group is None else ranks_of(process_group)
    accelerator = _accelerator(settings, track, logging_dir)
    ranks.same(agreement.of_settings(settings), agreement.REMEDY)
    noise, seed = methods.noise_of(settings), settings.schedule.seed
    problem = pose(settings, accelerator.device)
    network = problem.network
    if ranks.size > 1:
        ranks.same(agreement.of_data(problem.dataset), agreement.REMEDY)
        # Initial weights may depend on the machine; the strength that "auto" starts from depends on them.
        ranks.copy_from_first([*network.parameters(), *network.buffers()])
        passes.check_processes(network, problem.dataset)
    passes.check(settings.batches, network, problem.dataset)
    plan = make_plan(settings, len(problem.dataset.train), problem.regime)
    methods.check_ghosts(settings, plan.batches)
    methods.check_momentum(settings, plan.phases)
    methods.check_left_noise(settings, plan.batches, ranks.size)
    first = plan.phases[settings.schedule.start_epoch]
    average = methods.average(settings, network, plan.epochs)
    made = regime.make_optimizer(first, network.parameters(), first.lr, methods.sam_arguments(settings.rival))
    # Accelerate would make all processes' network one; the learner does, so that the rest keeps to the network itself.
    model = accelerator.prepare_model(network, evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(made)
    smoother = SmoothOut(
        network,
        noise.wanted,
        scale=noise.scale,
        distribution=noise.distribution,
        schedule=noise.noise_schedule,
        anneal_index=noise.anneal_index,
        tanh_scale=noise.tanh_scale,
        cosine_gain=noise.cosine_gain,
        total_steps=plan.total_updates,
        start_step=noise.start_step,
        clean_share=noise.clean_share,
        exclude=exclude_batch_norm if noise.exclude_bn else exclude_nothing,
        one_dimensional=noise.one_dimensional,
        denoise=noise.denoise,
        seed=fold(seed, NOISE),
        sync=noise.sync,
        process_group=ranks.group,
    )
    run = Run(
        settings,
        plan,
        problem.dataset,
        network,
        model,
        passes.Learner(model, settings.schedule.compile, accelerator.device, ranks),
        optimizer,
        problem.loss,
        problem.training_loss,
        smoother,
        methods.momentum_sam(settings, network, made) or smoother,
        average,
        accelerator,
        ranks,
        initial=[],
        outputs=problem.outputs,
    )
    if not resume:
        set_start(run)
    return run


def set_start(run: Run) -> None:
    """Take the weights to start from, where they are given, and keep them as those that distances are taken from."""
    weights = run.settings.network.weights
    if weights is not None:
        load_weights(run, checkpoint.find(weights) if run.ranks.first else None)
    run.initial = [parameter.detach().clone() for parameter in run.network.parameters()]


def load_weights(run: Run, place: Path | None) -> None:
    """Load a checkpoint's weights and buffers, which only the first process names and reads, in all processes."""
    if place is not None:
        checkpoint.load_weights(place, run.network)
    run.ranks.copy_from_first([*run.network.parameters(), *run.network.buffers()])


def _accelerator(settings: Settings, track: Sequence[trackers.Tracker], logging_dir: Path | None) -> Accelerator:
    """Device, precision and trackers by Accelerate."""
    # Its state is global; a process that makes several runs starts each one afresh.
    AcceleratorState._reset_state(reset_partial_state=True)
    schedule = settings.schedule
    trackers.check(track)
    own = launched().device(schedule.device, torch.cuda.device_count())
    cpu = device.choose(own).type == "cpu"
    state = PartialState(cpu=cpu)
    if schedule.precision == "fp16" and state.device.type == "cpu":
        raise ValueError("precision is fp16 and the device a CPU, where it would silently be fp32. Use bf16 or fp32.")
    mixed = "no" if schedule.precision == "fp32" else schedule.precision
    return Accelerator(cpu=cpu, mixed_precision=mixed, log_with=list(track) or None, project_dir=logging_dir)
