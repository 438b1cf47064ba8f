"""The training loop: against a loop written by hand, and resumed against uninterrupted."""

import dataclasses

import pytest
import torch
from PIL import Image
from references import by_hand
from small_runs import USER, Watcher, equal, run, settings, weights
from torch.nn import functional

from smoothout import SmoothOut
from smoothout.large_batch import ghost_batches, partition
from smoothout.noise.philox import fold
from smoothout.train import data, models
from smoothout.train.data.images import PadCropFlip, normaliser
from smoothout.train.loop import _ORDER, _STEP, train
from smoothout.train.regime import optimizers
from smoothout.train.run import NOISE, prepare
from smoothout.train.run_folder import RunFolder


def test_equals_a_loop_written_by_hand(tmp_path):
    chosen = settings(epochs=2, accumulation=2, copies=2, lr_rule="none", milestones=(1,), clip=0.1)
    folder, _ = run(tmp_path / "run", chosen)

    dataset = data.load(chosen.data, 3)
    model = models.build(chosen.network.model, dataset.input_shape, dataset.classes, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    step = 0
    for epoch in range(2):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * 0.1**epoch
        order = torch.randperm(203, generator=torch.Generator().manual_seed(fold(3, _ORDER, epoch) >> 1))
        sizes = partition(203, 64)  # 64, 64, 64, 11: two updates of 128 and 75 samples
        batches = torch.split(order, sizes)
        for pair in (batches[:2], batches[2:]):
            samples = sum(map(len, pair))
            ghosts = [ghost for indices in pair for ghost in ghost_batches(indices, size=24)]
            for k, indices in enumerate(ghosts):
                for copy in range(2):
                    torch.default_generator.manual_seed(fold(3, _STEP, step, k) >> 1)
                    with by_hand(model, 0.05, (fold(3, NOISE), step, k, copy), left_out=("1.weight", "1.bias")):
                        logits = model(dataset.train.inputs[indices])
                        loss = functional.cross_entropy(logits, dataset.train.targets[indices])
                        (loss * (len(indices) / samples / 2)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    assert equal(weights(folder), model.state_dict())


REGIME = """
def model(num_classes, input_shape):
    from torch import nn
    net = nn.Linear(*input_shape, num_classes)
    net.regime = lambda epoch: [
        {"optimizer": "SGD", "lr": 0.1, "momentum": 0.9},
        {"lr": 0.05},
        {"optimizer": "Adam", "lr": 0.02, "betas": (0.5, 0.9)},
        {"weight_decay": 0.1},
    ][epoch]
    return net
"""


def with_regime(tmp_path, **changes):
    (tmp_path / "net.py").write_text(REGIME)
    return settings(model=f"{tmp_path}/net.py:model", lr_rule="none", strength=0.0, ghost_batch_size=64, **changes)


def test_a_regime_equals_a_loop_written_by_hand(tmp_path):
    chosen = with_regime(tmp_path)
    folder, _ = run(tmp_path / "run", chosen)
    assert [row.lr for row in folder.metrics()] == [0.1, 0.05, 0.02, 0.02]

    dataset = data.load(chosen.data, 3)
    model = models.build(chosen.network.model, dataset.input_shape, dataset.classes, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    adam = torch.optim.Adam(model.parameters(), lr=0.02, betas=(0.5, 0.9))
    for epoch, optimizer in enumerate((sgd, sgd, adam, adam)):  # momentum lasts over the second epoch's start
        if epoch == 1:
            sgd.param_groups[0]["lr"] = 0.05
        if epoch == 3:
            adam.param_groups[0]["weight_decay"] = 0.1
        order = torch.randperm(203, generator=torch.Generator().manual_seed(fold(3, _ORDER, epoch) >> 1))
        for indices in torch.split(order, partition(203, 64)):
            functional.cross_entropy(model(dataset.train.inputs[indices]), dataset.train.targets[indices]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
    assert equal(weights(folder), model.state_dict())


@pytest.mark.parametrize("stop_after", [6, 9, 14])  # in the second, third and fourth epoch
def test_a_regime_resumes_exactly(stop_after, tmp_path):
    whole, _ = run(tmp_path / "whole", with_regime(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", with_regime(tmp_path), Watcher(stop_after=stop_after))
    parts, _ = run(tmp_path / "parts", with_regime(tmp_path), resume=True)
    assert equal(weights(whole), weights(parts))


def test_start_epoch_counts_epochs_as_done(tmp_path):
    chosen = settings(start_epoch=2, noise_schedule="tanh")
    folder, result = run(tmp_path / "run", chosen)
    whole, _ = run(tmp_path / "whole", settings(noise_schedule="tanh"))
    assert [row.epoch for row in folder.metrics()] == [3, 4]
    assert [row.updates for row in folder.metrics()] == [12, 16]
    assert [(row.strength, row.lr) for row in folder.metrics()] == [
        (row.strength, row.lr) for row in whole.metrics()[2:]
    ]
    assert result.updates == 16


def test_weights_of_a_checkpoint_are_the_start(tmp_path):
    first, _ = run(tmp_path / "first", settings(epochs=1))
    chosen = settings(epochs=2, weights=tmp_path / "first" / "checkpoints" / "last")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", chosen, Watcher(stop_after=6))
    assert equal(weights(RunFolder.open(tmp_path / "parts"), "initial"), weights(first))
    whole, _ = run(tmp_path / "whole", chosen)
    (tmp_path / "first").rename(tmp_path / "gone")
    prepared = prepare(chosen, resume=True)  # needs it no more
    train(prepared, RunFolder.open(tmp_path / "parts"), Watcher(), resume=True)
    assert equal(weights(RunFolder.open(tmp_path / "parts")), weights(whole))


def test_weights_are_taken_also_where_the_start_was_interrupted(tmp_path):
    first, _ = run(tmp_path / "first", settings(epochs=1))
    chosen = settings(epochs=1, weights=tmp_path / "first" / "checkpoints" / "last")
    RunFolder.create(tmp_path / "run", chosen)  # and nothing else was written
    resumed, _ = run(tmp_path / "run", chosen, resume=True)
    assert equal(weights(resumed, "initial"), weights(first))


def test_every_epoch_is_kept_on_request(tmp_path):
    folder, _ = run(tmp_path / "run", settings(epochs=3, save_all=True, checkpoint_every=3))
    kept = [weights(folder, f"epoch-{epoch}") for epoch in (1, 2, 3)]
    assert equal(kept[2], weights(folder))
    assert not equal(kept[0], kept[1])


def test_images_are_augmented_and_normalised_by_ghost_batch(tmp_path, monkeypatch):
    chosen = settings(dataset=f"{USER}:pictures", model="cifar10_shallow", epochs=1, label_smoothing=0.1, holdout=0.5)
    dataset = data.load(chosen.data, 3)
    augmented = dataclasses.replace(dataset, normalise=normaliser((0.5,), (0.25,)), augment=PadCropFlip(2, 9))
    monkeypatch.setattr(data, "load", lambda settings, seed: augmented)
    prepared = prepare(chosen)
    train(prepared, RunFolder.create(tmp_path / "run", chosen), Watcher())

    model = models.build("cifar10_shallow", (1, 9, 9), 4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=prepared.plan.lr(0), momentum=0.9, weight_decay=5e-4)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(fold(3, _ORDER, 0) >> 1))
    smoother = SmoothOut(model, 0.05, seed=fold(3, NOISE))
    for step, indices in enumerate(torch.split(order, partition(60, 64))):
        for k, part in enumerate(ghost_batches(indices, size=24)):
            torch.default_generator.manual_seed(fold(3, _STEP, step, k) >> 1)
            x = (PadCropFlip(2, 9)(dataset.train.inputs[part]).float() / 255 - 0.5) / 0.25
            with smoother.perturbed():
                loss = functional.cross_entropy(model(x), dataset.train.targets[part], label_smoothing=0.1)
                (loss * (len(part) / len(indices))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        smoother.step()
    assert equal(weights(RunFolder.open(tmp_path / "run")), model.state_dict())


def test_streamed_images_resume_exactly(tmp_path):
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            for index in range(count):
                size = (20 + index, 30)  # unequal, so that they are read by worker processes
                Image.new("RGB", size, (index * 20, 100, 50)).save(tmp_path / "tree" / split / name / f"{index}.png")
    chosen = settings(
        dataset="imagefolder", data_dir=tmp_path / "tree", input_size=16, workers=1, model="resnet",
        batch_size=8, ghost_batch_size=4, epochs=2,
    )  # fmt: skip
    whole, _ = run(tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", chosen, Watcher(stop_after=4))
    parts, _ = run(tmp_path / "parts", dataclasses.replace(chosen), resume=True)
    assert equal(weights(whole), weights(parts))


CASES = {
    "plain": {"strength": 0.0},
    "filter noise": {"scale": "filter", "strength": 0.2},
    "a rising schedule and accumulation": {"noise_schedule": "tanh", "accumulation": 2, "warmup_steps": 3},
    "Adam": {"optimizer": "Adam", "lr": 0.01},
    "bf16": {"precision": "bf16"},
    "auto": {"strength": "auto"},
    "sam": {"strength": 0.0, "method": "sam"},
    "asam": {"strength": 0.0, "method": "asam"},
    "momentum_sam": {"strength": 0.0, "method": "momentum_sam"},
    "lpf": {"method": "lpf"},
    "mrwp": {"method": "mrwp"},
    "ema": {"method": "ema"},
    "swa": {"method": "swa", "average_start": 0.5},
    "Lamb": {"optimizer": "Lamb", "lr": 0.01},
    "a noise per batch": {"noise_per": "batch", "accumulation": 2},
    "auto per batch": {"noise_per": "batch", "accumulation": 2, "strength": "auto"},
    "sam per batch": {"noise_per": "batch", "strength": 0.0, "method": "sam"},
    "rare checkpoints": {"checkpoint_every": 2, "evaluate_every": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_equals_uninterrupted(case, tmp_path):
    chosen = settings(**CASES[case])
    whole, result = run(tmp_path / "whole", chosen)
    watcher = Watcher(stop_after=10 if CASES[case].get("accumulation", 1) == 1 else 5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", chosen, watcher)
    parts, resumed = run(tmp_path / "parts", chosen, resume=True)
    for name in ("initial", "last", "best"):
        assert equal(weights(whole, name), weights(parts, name)), name
    timeless = [
        [repr(dataclasses.replace(row, seconds=0, samples_per_second=0)) for row in folder.metrics()]
        for folder in (whole, parts)
    ]
    assert timeless[0] == timeless[1]
    assert len(timeless[0]) == 4
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(result, seconds=0)


def test_interrupted_before_the_first_checkpoint(tmp_path):
    chosen = settings(epochs=1)
    whole, _ = run(tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", chosen, Watcher(stop_after=2))
    parts, _ = run(tmp_path / "parts", chosen, resume=True)
    assert equal(weights(whole), weights(parts))


def test_interrupted_before_anything_was_written(tmp_path):
    chosen = settings(epochs=1)
    whole, _ = run(tmp_path / "whole", chosen)
    RunFolder.create(tmp_path / "parts", chosen)
    parts, _ = run(tmp_path / "parts", chosen, resume=True)
    assert equal(weights(whole), weights(parts))
    assert equal(weights(whole, "initial"), weights(parts, "initial"))


def test_interrupted_after_the_last_checkpoint(tmp_path):
    chosen = settings(noise_schedule="tanh")
    folder, result = run(tmp_path / "run", chosen)
    (folder.path / "result.json").unlink()
    _, again = run(tmp_path / "run", chosen, resume=True)
    assert again == result


def test_what_a_run_writes(tmp_path):
    watcher = Watcher()
    folder, result = run(tmp_path / "run", settings(scale="filter", strength=0.2), watcher)
    assert watcher.updates == watcher.expected == result.updates == 16
    rows = folder.metrics()
    assert [row.epoch for row in rows] == [1, 2, 3, 4]
    assert [row.updates for row in rows] == [4, 8, 12, 16]
    assert all(row.strength == 0.2 for row in rows)
    assert all(0.19 < row.r < 0.21 for row in rows)
    assert rows[2].lr == pytest.approx(rows[0].lr / 10)
    initial, last = weights(folder, "initial"), weights(folder)
    names = [name for name, _ in models.build(f"{USER}:net", (6,), 4, 3).named_parameters()]
    distance = sum(float((initial[n].double() - last[n].double()).square().sum()) for n in names) ** 0.5
    assert rows[-1].distance == pytest.approx(distance, rel=1e-6)
    best = min(rows, key=lambda row: (row.holdout_error1, row.holdout_loss))
    assert result.best_epoch == best.epoch
    assert result.test_accuracy_best == 100 - best.test_error1
    assert result.test_accuracy_last == 100 - rows[-1].test_error1
    assert result.test_accuracy_last > 50
    assert (folder.path / "result.json").exists()


def test_arms_share_start_and_order_per_seed(tmp_path):
    plain, _ = run(tmp_path / "plain", settings(strength=0.0, epochs=1))
    noisy, _ = run(tmp_path / "noisy", settings(strength=0.1, epochs=1))
    other, _ = run(tmp_path / "other", settings(seed=4, epochs=1))
    assert equal(weights(plain, "initial"), weights(noisy, "initial"))
    assert not equal(weights(plain, "initial"), weights(other, "initial"))
    assert not equal(weights(plain), weights(noisy))


def test_epochs_between_evaluations(tmp_path):
    folder, result = run(tmp_path / "run", settings(evaluate_every=3))
    assert [row.epoch for row in folder.metrics() if row.test_loss == row.test_loss] == [3, 4]
    assert result.best_epoch in (3, 4)


def test_divergence_is_told(tmp_path):
    with pytest.raises(FloatingPointError, match="the training loss is .* in epoch 1, update 4: training has diverged"):
        run(tmp_path / "run", settings(model=f"{USER}:diverging"))


def test_half_precision_on_a_cpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision is fp16 and the device a CPU, where it would silently be fp32"):
        run(tmp_path / "run", settings(precision="fp16", device="cpu"))


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_every_optimizer_makes_an_epoch(name, tmp_path):
    _, result = run(tmp_path / "run", settings(optimizer=name, lr=0.001, epochs=1))
    assert result.updates == 4


def test_options_that_an_optimizer_lacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="weight_decay is 0.5 and Rprop has none. Leave --weight-decay out"):
        run(tmp_path / "run", settings(optimizer="Rprop", weight_decay=0.5))


def test_an_unknown_optimizer_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="the optimizer is 'LBFGS'; expected one of ASGD, Adadelta.*, SGD"):
        run(tmp_path / "run", settings(optimizer="LBFGS"))
