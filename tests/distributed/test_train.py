"""A run's weights do not depend on the number of processes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from four_processes import Failed

from smoothout.train import passes

NETS = Path(__file__).parent / "nets.py"
TOLERANCE = 1e-12  # of ||difference|| / ||weights||, in float64, after 100 updates
#: 130 samples in batches of 40 are 4 updates an epoch, the last of 10 samples: ghost batches of 8 and 2.
SMALL = {
    "dataset": f"{NETS}:images",
    "model": f"{NETS}:conv",
    "batch_size": 40,
    "ghost_batch_size": 8,
    "epochs": 25,
    "strength": 0.05,
    "lr": 0.05,
    "milestones": (15,),
    "warmup_steps": 5,
    "evaluate_every": 25,
    "seed": 3,
    "device": "cpu",
}


class Watcher:
    def __getattr__(self, name):
        return lambda *arguments: None


def train_here(group, folder, changes, float64=True, fault=None):
    """Train a run in the processes of a group; returns state_dict, rows and result of this process."""
    from smoothout.ranks import ranks_of
    from smoothout.train import loop, run
    from smoothout.train.config import Settings
    from smoothout.train.data.images import PadCropFlip
    from smoothout.train.run_folder import RunFolder

    def posed(settings, device, pose=run.pose):
        problem = pose(settings, device)
        kind = torch.float64 if float64 else torch.float32
        problem.network.to(kind)
        dataset = dataclasses.replace(
            problem.dataset, augment=PadCropFlip(1, fill=0), normalise=lambda inputs: inputs.to(kind)
        )
        return dataclasses.replace(problem, dataset=dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "pose", posed)
        settings = Settings().replace(**(SMALL | changes))
        prepared = run.prepare(settings, process_group=group)
        ranks = ranks_of(group)
        if fault is not None:
            fault(patch, prepared, ranks)
        there = RunFolder.create(folder, settings) if ranks.first else None
        result = loop.train(prepared, there, Watcher())
        rows = there.metrics() if ranks.first else []
    return prepared.network.state_dict(), rows, result


def start_from_other_weights(group, folder):
    """Initial weights that depend on the process, as a model has that draws them from generators of its own."""
    rank = torch.distributed.get_rank(group)
    made = []

    def shift(patch, prepared, ranks):
        made.append([parameter.detach().clone() for parameter in prepared.network.parameters()])

    from smoothout.train import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "pose", shifted(run.pose, rank))
        train_here(group, folder, {"epochs": 1, "milestones": (9,), "strength": "auto"}, True, shift)
    return made[0]


def shifted(pose, rank):
    def posed(settings, device):
        problem = pose(settings, device)
        with torch.no_grad():
            for parameter in problem.network.parameters():
                parameter.add_(rank)
        return problem

    return posed


def test_all_start_from_the_weights_of_the_first(processes, tmp_path):
    first, second = processes(start_from_other_weights, tmp_path / "run", size=2)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def mix_rank_into_stream(patch, prepared, ranks):
    perturbed = prepared.smoother.perturbed
    patch.setattr(prepared.smoother, "perturbed", lambda stream: perturbed(stream + 100 * ranks.rank))


def spread(group, folder, changes, float64, with_fault):
    return train_here(group, folder, changes, float64, mix_rank_into_stream if with_fault else None)


def trained(processes, folder, size, changes=None, float64=True, with_fault=False):
    found = processes(spread, folder / str(size), changes or {}, float64, with_fault, size=size)
    for state, _, result in found:
        assert all(torch.equal(value, found[0][0][name]) for name, value in state.items())  # replicas, bit for bit
        assert dataclasses.replace(result, seconds=0) == dataclasses.replace(found[0][2], seconds=0)
    return found[0]


def apart(state, other):
    """The largest ||difference|| / ||weights|| of all tensors."""
    assert state.keys() == other.keys()
    return max(
        float((state[name].double() - other[name].double()).norm() / other[name].double().norm()) for name in other
    )


@pytest.fixture(scope="module")
def alone(processes, tmp_path_factory):
    """The same runs in one process, kept."""
    kept = {}

    def get(changes=None, float64=True):
        key = (tuple(sorted((changes or {}).items())), float64)
        if key not in kept:
            kept[key] = trained(processes, tmp_path_factory.mktemp("alone"), 1, changes, float64)
        return kept[key]

    return get


@pytest.mark.parametrize("size", [2, 3, 4])
def test_equal_in_float64(processes, alone, tmp_path, size):
    state, rows, _ = trained(processes, tmp_path, size)
    expected, expected_rows, _ = alone()
    assert apart(state, expected) <= TOLERANCE
    assert int(state["1.num_batches_tracked"]) == 25 * (3 * 5 + 2)
    for row, other in zip(rows, expected_rows, strict=True):
        assert (row.updates, row.lr, row.strength, row.holdout_error1) == pytest.approx(
            (other.updates, other.lr, other.strength, other.holdout_error1), nan_ok=True
        )
        assert row.train_loss == pytest.approx(other.train_loss, rel=1e-11)
        assert row.train_error1 == pytest.approx(other.train_error1, rel=1e-12)


def test_with_the_rank_in_the_stream_it_is_another_run(processes, alone, tmp_path):
    state, _, _ = trained(processes, tmp_path, 2, with_fault=True)
    assert apart(state, alone()[0]) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "sam"},
        {"scale": "filter", "distribution": "normal", "clean_share": 0.5},
        {"strength": "auto"},
        {"copies": 2, "accumulation": 2, "clip": 0.5},
        {"noise_per": "batch", "accumulation": 3},
        {"method": "ema"},
        {"method": "momentum_sam", "strength": 0.0},
        {"method": "swa"},
        {"dataset": f"{NETS}:read_images", "workers": 0},
    ],
    ids=lambda changes: " ".join(Path(str(value)).name for value in changes.values()),
)
def test_equal_with(processes, alone, tmp_path, changes):
    changes = {"strength": 0.0} | changes if changes.get("method") == "sam" else changes
    changes = changes | {"epochs": 5, "evaluate_every": 5, "milestones": (3,)}
    state, _, result = trained(processes, tmp_path, 3, changes)
    expected, _, other = alone(changes)
    assert apart(state, expected) <= TOLERANCE
    assert result.test_loss_last == pytest.approx(other.test_loss_last, rel=1e-9)


def test_float32(processes, alone, tmp_path):
    """To rounding, which training makes grow: stated in docs/scaling.md."""
    changes = {"epochs": 5, "evaluate_every": 5, "milestones": (3,)}
    state, _, _ = trained(processes, tmp_path, 3, changes, float64=False)
    assert 0 < apart(state, alone(changes, float64=False)[0]) < 1e-4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"model": f"{NETS}:shared_norm"},
            r"BatchNorm 'norm' was called (6 times for 3|4 times for 2) ghost batches; expected once",
        ),
        (
            {"model": f"{NETS}:shared_norm", "start_epoch": 1, "epochs": 2},
            r"called (6 times for 3|4 times for 2) ghost",
        ),
        ({"model": f"{NETS}:unused"}, r"parameter '1.weight' has no part in what the network computes"),
        ({"model": f"{NETS}:counting"}, r"checksum of largest is \d+ in process 1 and \d+ in process 0.*kind of proc"),
    ],
)
def test_what_would_depend_on_the_processes_is_refused(processes, tmp_path, changes, text):
    with pytest.raises(Failed, match=text):
        processes(spread, tmp_path / "run", {"epochs": 1, "milestones": (9,)} | changes, True, False, size=2)


def test_synchronised_statistics_are_refused():
    with pytest.raises(ValueError, match=r"layer '1' is a SyncBatchNorm.*expected BatchNorm, with statistics of each"):
        passes.check_processes(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.SyncBatchNorm(81)), None)


def differ(group, changes):
    from smoothout.train import run
    from smoothout.train.config import Settings

    rank = torch.distributed.get_rank(group)
    with pytest.raises(ValueError, match="expected the same") as error:
        run.prepare(Settings().replace(**(SMALL | (changes if rank == 2 else {}))), process_group=group)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lr": 0.1}, "lr is 0.1 in process 2 and 0.05 in process 0; expected the same in all 3 processes."),
        ({"dataset": f"{NETS}:more_images"}, "dataset is "),
    ],
)
def test_settings_that_differ_are_named(processes, changes, text):
    for found in processes(differ, changes, size=3):
        assert found.startswith(text)
        assert found.endswith("Start all with the same command, versions and data.")


def differ_in_versions(group):
    from smoothout.train import agreement

    with pytest.MonkeyPatch.context() as patch:
        if torch.distributed.get_rank(group) == 1:
            patch.setattr(agreement, "versions", lambda: {"smoothout": "0.1.0", "python": "3.11", "torch": "1.0"})
        else:
            patch.setattr(agreement, "versions", lambda: {"smoothout": "0.1.0", "python": "3.11", "torch": "2.0"})
        return differ(group, {})


def differ_in_data(group):
    from smoothout.train import run

    def posed(settings, device, pose=run.pose):
        problem = pose(settings, device)
        if torch.distributed.get_rank(group) == 1:
            problem.dataset.train.inputs[7] += 1
        return problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "pose", posed)
        return differ(group, {})


def test_versions_and_data_that_differ_are_named(processes):
    for found in processes(differ_in_versions, size=2):
        assert found.startswith("version of torch is '1.0' in process 1 and '2.0' in process 0; expected the same")
    for found in processes(differ_in_data, size=2):
        assert found.startswith("checksum of the train samples is [")


def test_shared_noise_may_stay_in_the_weights(processes, tmp_path):
    short = {"epochs": 2, "evaluate_every": 2, "milestones": (9,), "batch_size": 32, "denoise": False}
    short |= {"dataset": f"{NETS}:even_images", "strength": 1e-3}
    trained(processes, tmp_path, 2, short | {"sync": "shared"})  # replicas are compared there
    with pytest.raises(Failed, match="denoise is off and sync 'independent' in 2 processes.*Give --sync shared"):
        processes(spread, tmp_path / "drift", short, True, False, size=2)
    with pytest.raises(Failed, match="denoise is off and an update has 4 ghost batches for 3 processes"):
        processes(spread, tmp_path / "uneven", short | {"sync": "shared"}, True, False, size=3)
