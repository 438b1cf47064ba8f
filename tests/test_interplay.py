"""SmoothOut beside what else lives in a training loop: each against a loop written by hand, bit for bit.

Every scenario is shown to fail when the part of SmoothOut that it guards is taken out: MUTANTS names the parts,
GUARDED the scenarios that must notice. tests/mutants.md is the same table in words.
"""

import copy
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from references import by_hand
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from smoothout import SmoothOut, ghost_batches
from smoothout.kernels.on_cpu import FusedOnCPU
from smoothout.scope import Block
from smoothout.weights import Snapshot

STRENGTH, SEED, STEPS = 0.2, 3, 3
BATCH_NORM = ("1.weight", "1.bias")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.randn(10, 6, generator=generator), torch.randint(0, 3, (10,), generator=generator)


class DataWriter(torch.optim.Optimizer):
    """An optimizer outside torch: it writes through ``.data``, which bumps no version."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - 0.1 * parameter.grad


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, **options)


def train(
    scope,
    model,
    *,
    optimizer=sgd,
    autocast=None,
    scaler=None,
    overflow=False,
    clip=None,
    schedule=False,
    forward=None,
):
    """The README's loop; ``scope(step, ghost)`` is what perturbs. Returns all weights and buffers at the end."""
    optimizer = optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5) if schedule else None
    scaler = scaler() if scaler else torch.amp.GradScaler("cpu", enabled=False)
    outside = torch.autocast("cpu", torch.bfloat16) if autocast == "outside" else nullcontext()
    for step, (inputs, targets) in enumerate(batches()):
        with outside:
            for ghost, (x, y) in enumerate(ghost_batches(inputs, targets, size=4)):
                inner = torch.autocast("cpu", torch.bfloat16) if autocast == "inside" else nullcontext()
                with scope(step, ghost), inner:
                    logits = (forward or nn.Module.__call__)(model, x)
                    loss = functional.cross_entropy(logits.float(), y) * (len(x) / len(inputs))
                    scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), clip)
        if overflow and step == 0:
            next(model.parameters()).grad[0, 0] = float("inf")  # the scaler must skip this step
        first = next(model.parameters())
        before, scale = first.detach().clone(), scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if overflow and step == 0:
            assert torch.equal(first, before)
            assert scaler.get_scale() < scale
        optimizer.zero_grad()
        if scheduler:
            scheduler.step()
    return copy.deepcopy(model.state_dict())


def compare(*, wrap=lambda model: model, **options):
    """Train with SmoothOut and by hand; equal to the last bit."""
    ours = network()
    smoother = SmoothOut(ours, STRENGTH, seed=SEED)

    @contextmanager
    def perturbed(step, ghost):
        while smoother.updates < step:
            smoother.step()
        with smoother.perturbed():
            yield

    theirs = network()

    def hand(step, ghost):
        return by_hand(theirs, STRENGTH, (SEED, step, ghost, 0), left_out=BATCH_NORM)

    found = train(perturbed, wrap(ours), **options)
    expected = train(hand, wrap(theirs), **options)
    start = network().state_dict()
    for (name, value), right in zip(found.items(), expected.values(), strict=True):
        assert torch.equal(value, right), name
    assert not all(torch.equal(v, s) for v, s in zip(found.values(), start.values(), strict=True))


def checkpointed(model, x):
    return checkpoint(model[3], checkpoint(model[:3], x, use_reentrant=False), use_reentrant=False)


def late_backward():
    """A backward pass after the block must raise: the weights that autograd saved have changed."""
    model = network()
    smoother = SmoothOut(model, STRENGTH)
    with smoother.perturbed():
        loss = model(torch.randn(4, 6)).square().sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def forward_before_the_block():
    """So must one inside the block of a forward pass made before it."""
    model = network()
    smoother = SmoothOut(model, STRENGTH)
    loss = model(torch.randn(4, 6)).square().sum()
    with smoother.perturbed(), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def autocast_nestings_agree():
    """Autocast opened outside the block or inside it gives the same weights to the network."""
    outputs = []
    x = torch.randn(4, 6)
    for outside in (True, False):
        model = network().eval()
        smoother = SmoothOut(model, STRENGTH)
        results = []
        with torch.autocast("cpu", torch.bfloat16, enabled=outside):
            clean = torch.autocast("cpu", torch.bfloat16)
            with clean:
                results.append(model(x))
            with smoother.perturbed(), torch.autocast("cpu", torch.bfloat16):
                results.append(model(x))
            with clean:
                results.append(model(x))
        outputs.append(torch.stack([result.detach() for result in results]))
    assert torch.equal(*outputs)
    assert torch.equal(outputs[0][0], outputs[0][2])
    assert not torch.equal(outputs[0][0], outputs[0][1])


SCENARIOS: dict[str, Callable[[], None]] = {
    "plain loop with ghost batches and a ragged last one": compare,
    "clipping": lambda: compare(clip=0.5),
    "scheduler": lambda: compare(schedule=True),
    "GradScaler": lambda: compare(scaler=lambda: torch.amp.GradScaler("cpu", init_scale=1024.0)),
    "GradScaler with clipping": lambda: compare(scaler=lambda: torch.amp.GradScaler("cpu"), clip=0.5),
    "GradScaler that skips a step": lambda: compare(scaler=lambda: torch.amp.GradScaler("cpu"), overflow=True),
    "foreach optimizer": lambda: compare(optimizer=lambda p: sgd(p, foreach=True)),
    "for-loop optimizer": lambda: compare(optimizer=lambda p: sgd(p, foreach=False)),
    "fused optimizer": lambda: compare(optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)),
    "optimizer that writes through .data": lambda: compare(optimizer=DataWriter),
    "torch.compile": lambda: compare(wrap=lambda model: torch.compile(model, backend="aot_eager")),
    "activation checkpointing": lambda: compare(forward=checkpointed),
    "autocast inside the block": lambda: compare(autocast="inside"),
    "autocast outside the block": lambda: compare(autocast="outside"),
    "autocast nestings agree": autocast_nestings_agree,
    "backward after the block": late_backward,
    "backward inside, forward before": forward_before_the_block,
}


def _restore_nothing(self, *same):
    pass


def _restore_by_subtraction(self, *same):
    # As adding and subtracting would leave them: off by an ulp here and there.
    with torch.no_grad():
        for parameter, kept in zip(self._parameters, self._copies, strict=True):
            parameter.copy_((parameter + kept) - parameter)


def _without_version(original):
    def restore(self):
        for parameter, kept in zip(self._parameters, self._copies, strict=True):
            parameter.data.copy_(kept)

    def add_noise(self, key, amplitude):
        versions = {id(p): p.data for p in self._parameters}
        torch._foreach_add_ = lambda tensors, others: original([versions[id(t)] for t in tensors], others)
        try:
            _ADD_NOISE(self, key, amplitude)
        finally:
            torch._foreach_add_ = original

    return restore, add_noise


_ADD_NOISE = SmoothOut._add_noise


def take_out(part, monkeypatch):
    if part == "restore":
        for each in (Snapshot, FusedOnCPU):
            monkeypatch.setattr(each, "restore", _restore_nothing)
    elif part == "exact restore":
        for each in (Snapshot, FusedOnCPU):
            monkeypatch.setattr(each, "restore", _restore_by_subtraction)
    elif part == "cache clearing":
        monkeypatch.setattr(Block, "_forget_casts", staticmethod(lambda: None))
    elif part == "version bump":
        restore, add_noise = _without_version(torch._foreach_add_)
        monkeypatch.setattr(Snapshot, "restore", restore)
        monkeypatch.setattr(SmoothOut, "_add_noise", add_noise)
        monkeypatch.setattr(torch.autograd.graph, "increment_version", lambda _: None)


LOOPS = [name for name in SCENARIOS if not name.startswith(("backward", "autocast nestings"))]
GUARDED = {
    "restore": [*LOOPS, "autocast nestings agree"],
    "exact restore": LOOPS,
    "cache clearing": ["autocast outside the block", "autocast nestings agree"],
    "version bump": ["backward after the block", "backward inside, forward before"],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_interplay(name, backend):
    SCENARIOS[name]()


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in GUARDED.items() for name in names])
def test_is_noticed_when_taken_out(part, name, monkeypatch, backend):
    take_out(part, monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        SCENARIOS[name]()


def test_the_table_in_words():
    lines = ["| scenario | " + " | ".join(GUARDED) + " |", "|---|" + "---|" * len(GUARDED)]
    lines += [
        f"| {name} | " + " | ".join("fails" if name in GUARDED[p] else "" for p in GUARDED) + " |" for name in SCENARIOS
    ]
    assert "\n".join(lines) in Path(__file__).with_name("mutants.md").read_text()


def test_every_scenario_guards_something():
    assert set(SCENARIOS) == {name for names in GUARDED.values() for name in names}


def test_accumulation_over_batches():
    # Two batches an update: streams go on counting until step().
    ours, theirs = network(), network()
    smoother = SmoothOut(ours, STRENGTH, seed=SEED)
    for model, scope in (
        (ours, lambda stream: smoother.perturbed()),
        (theirs, lambda stream: by_hand(theirs, STRENGTH, (SEED, 0, stream, 0), left_out=BATCH_NORM)),
    ):
        optimizer, stream = sgd(model.parameters()), 0
        for inputs, targets in list(batches())[:2]:
            for x, y in ghost_batches(inputs, targets, size=4):
                with scope(stream):
                    (functional.cross_entropy(model(x), y) * (len(x) / 20)).backward()
                stream += 1
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
