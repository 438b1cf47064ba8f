"""Which noise processes draw that hold parts of the same weights, and what is refused."""

import pytest
import torch
from four_processes import mesh_of
from torch import distributed as dist
from torch import nn

from smoothout import AutoStrength, MomentumSAM, SmoothOut


def meshes(*shape):
    return mesh_of(*shape, names=("dp", "tp"))


def cut(mesh, *placements):
    """A Linear placed on a mesh, by default cut by rows."""
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.manual_seed(0)
    net = nn.Linear(4, 8, bias=False)
    weight = distribute_tensor(net.weight.detach(), mesh, placements or [Shard(0)] * mesh.ndim, src_data_rank=None)
    net.weight = nn.Parameter(weight)
    return net


def seen(smoother):
    """The streams of blocks that count by themselves."""
    found = []
    for _ in range(2):
        with smoother.perturbed() as noise:
            found += [smoother._last_stream for _ in noise.each(range(2))]
    return found


def counted(group, by):
    mesh = meshes(2, 2)
    if by == "all":
        return seen(SmoothOut(cut(mesh), 0.1))
    if by == "replicas":
        from torch.distributed.tensor import Replicate, Shard

        return seen(SmoothOut(cut(mesh, Replicate(), Shard(0)), 0.1, process_group=mesh["dp"].get_group()))
    if by == "copies":
        return seen(SmoothOut(cut(mesh["tp"]), 0.1, process_group=mesh["dp"].get_group()))
    return seen(SmoothOut(cut(mesh["tp"]), 0.1, sync="shared"))


def test_streams(processes):
    assert processes(counted, "all") == [[0, 1, 2, 3]] * 4
    assert processes(counted, "shared") == [[0, 1, 2, 3]] * 4
    for by in ("copies", "replicas"):  # number k of those along "dp" has stream k
        assert processes(counted, by) == [[0, 2, 4, 6]] * 2 + [[1, 3, 5, 7]] * 2


def refusals(group):
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh = meshes(2, 2)
    found = []
    for kind, make in (
        (ValueError, lambda: SmoothOut(cut(mesh["tp"]), 0.1)),
        (ValueError, lambda: SmoothOut(cut(mesh["tp"]), 0.1, process_group=mesh["tp"].get_group())),
        (ValueError, lambda: SmoothOut(cut(mesh), 0.1, process_group=group)),
        (TypeError, lambda: SmoothOut(list(cut(mesh).named_parameters()), 0.1)),
        (TypeError, lambda: momentum(cut(mesh))),
        (TypeError, lambda: SmoothOut(unsummed(DTensor, mesh, [Replicate(), Partial()]), 0.1, sync="shared")),
        (ValueError, lambda: SmoothOut(uneven(DTensor, mesh), 0.1)),
    ):
        with pytest.raises(kind) as error:
            make()
        found.append(str(error.value))
    return found


def momentum(net):
    return MomentumSAM(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), 0.1)


def unsummed(kind, mesh, placements):
    net = nn.Linear(4, 8, bias=False)
    net.weight = nn.Parameter(kind.from_local(net.weight.detach(), mesh, placements, run_check=False))
    return net


def uneven(kind, mesh):
    """Rows in another number on each process than placements give."""
    from torch.distributed.tensor import Replicate, Shard

    net = nn.Linear(4, 8, bias=False)
    values, (_, row) = net.weight.detach(), mesh.get_coordinate()
    held = values[:5] if row == 0 else values[5:]
    placements = [Replicate(), Shard(0)]
    weight = kind.from_local(held, mesh, placements, run_check=False, shape=values.shape, stride=values.stride())
    net.weight = nn.Parameter(weight)
    return net


def test_refusals(processes):
    for rank, (partial_mesh, along, everyone, pairs, momentum, unsummed, uneven) in enumerate(processes(refusals)):
        assert partial_mesh == (
            "weights are sharded over 2 of 4 processes, and process_group is None; expected the processes that have "
            'other ghost batches, and a copy of the weights each. Give process_group=mesh["dp"].get_group(), with the '
            "name of that dimension of your mesh."
        )
        assert along.startswith(f"processes {[0, 1] if rank < 2 else [2, 3]} of process_group hold parts of the same")
        assert everyone.startswith("processes [0, 1, 2, 3] of process_group hold parts of the same 'weight' and would")
        assert everyone.endswith("Leave process_group out, or give that of another dimension of the mesh.")
        assert pairs.startswith(
            "parameter 'weight' is a DTensor in pairs (name, parameter); expected plain ones there."
        )
        assert "Pass the model itself" in pairs
        assert momentum.startswith(
            "parameter 'weight' is a DTensor, of which this process holds a part; expected plain"
        )
        assert "Use SmoothOut" in momentum
        assert unsummed.startswith(
            "parameter 'weight' has the placement Partial(sum), so that no process knows its values"
        )
        assert "expected Shard or Replicate. Redistribute it" in unsummed
        assert uneven.startswith(
            f"parameter 'weight' of shape (8, 4) holds {(5, 4) if rank % 2 == 0 else (3, 4)} here; "
        )
        assert "expected (4, 4) by its placements" in uneven


def noise_that_stays(group):
    from torch.distributed.tensor import Shard

    mesh = meshes(1, 4)
    net, whole = cut(mesh["tp"], Shard(0)), nn.Linear(4, 8, bias=False)
    with torch.no_grad():
        whole.weight.copy_(net.weight.full_tensor())
    for each in (net, whole):
        smoother = SmoothOut(each, 0.1, denoise=False, **({"sync": "shared"} if each is whole else {}))
        for _ in range(3):
            with smoother.perturbed():
                pass
            smoother.step()
    assert torch.equal(net.weight.full_tensor(), whole.weight)


def test_noise_that_stays_is_shared(processes):
    processes(noise_that_stays)


def find_strength(group, losses, by):
    """Strengths that "auto" finds, of losses (updates, ghost batches, processes)."""
    mesh = meshes(2, 2)
    rank = dist.get_rank()
    if by == "one process":
        net, options = nn.Linear(4, 8, bias=False), {"sync": "shared"}
        with torch.no_grad():
            net.weight.copy_(cut(mesh).weight.full_tensor())
    elif by == "all":
        net, options = cut(mesh), {}
    else:
        net, options = cut(mesh["tp"]), {"process_group": mesh["dp"].get_group()}
    smoother, found = SmoothOut(net, AutoStrength(speed=0.1), **options), []
    for update in losses:
        for batch in update:
            with smoother.perturbed():
                pass
            smoother.observe(batch.mean() if by == "one process" else batch[rank])
        smoother.step()
        found.append(smoother.strength)
    return found


@pytest.mark.parametrize("by", ["all", "copies"])
def test_auto_finds_one_strength(processes, by):
    losses = 1 + torch.rand(8, 3, 4, dtype=torch.float64)
    losses[2:5, 1:] += 3
    found = processes(find_strength, losses, by)
    assert found == [found[0]] * 4
    assert len(set(found[0])) > 4
    if by == "all":
        assert found[0] == pytest.approx(processes(find_strength, losses, "one process")[0], rel=1e-12)


def one_clean_block(group):
    smoother = SmoothOut(cut(meshes(2, 2)), 0.1, clean_share=0.5)
    with smoother.perturbed():
        pass
    with pytest.warns(RuntimeWarning, match="one ghost batch, which stays clean"):
        smoother.step()


def test_a_single_ghost_batch_that_stays_clean_is_told(processes):
    processes(one_clean_block)
