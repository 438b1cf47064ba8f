"""Which noise each process sees, and that all of them do the same thing."""

import itertools

import pytest
import torch

from smoothout import AutoStrength, SmoothOut


def model():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).double()


def weights(net):
    return torch.cat([parameter.detach().flatten().clone() for parameter in net.parameters()])


def seen_by_stream(smoother, net, streams):
    found = {}
    for stream in streams:
        with smoother.perturbed(stream):
            found[stream] = weights(net)
    return found


def count(group, blocks, sync):
    """The weights in blocks that count by themselves, and in one block's each()."""
    net = model()
    smoother = SmoothOut(net, 0.1, sync=sync, process_group=group)
    apart = []
    for _ in range(blocks):
        with smoother.perturbed():
            apart.append(weights(net))
    smoother.step()
    smoother.load_state_dict(smoother.state_dict() | {"updates": 0})
    with smoother.perturbed() as noise:
        together = [weights(net) for _ in noise.each(range(blocks))]
    r = smoother.summary().relative_noise
    return apart, together, r


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ghost_batch_k_has_stream_k(processes, size):
    net = model()
    expected = seen_by_stream(SmoothOut(net, 0.1), net, range(3 * size))
    found = processes(count, 3, "independent", size=size)
    for rank, (apart, together, _) in enumerate(found):
        for block in range(3):
            assert torch.equal(apart[block], expected[rank + block * size])
            assert torch.equal(together[block], expected[rank + block * size])
    assert len({tuple(seen.tolist()) for apart, *_ in found for seen in apart}) == 3 * size


def test_shared(processes):
    net = model()
    expected = seen_by_stream(SmoothOut(net, 0.1), net, range(3))
    for apart, together, r in processes(count, 3, "shared", size=3):
        assert all(torch.equal(apart[block], expected[block]) for block in range(3))
        assert all(torch.equal(together[block], expected[block]) for block in range(3))
        assert r == pytest.approx(SmoothOut(net, 0.1).summary().relative_noise, rel=1)


def given(group):
    net = model()
    smoother = SmoothOut(net, 0.1, process_group=group)
    rank = torch.distributed.get_rank(group)
    with smoother.perturbed(stream=10 + rank) as noise:
        return [weights(net) for _ in noise.each(range(2))]


def test_given_streams_go_on_by_the_number_of_processes(processes):
    net = model()
    expected = seen_by_stream(SmoothOut(net, 0.1), net, range(10, 16))
    for rank, found in enumerate(processes(given, size=3)):
        assert torch.equal(found[0], expected[10 + rank])
        assert torch.equal(found[1], expected[13 + rank])


def refuse(group):
    smoother = SmoothOut(model(), 0.1, denoise=False, process_group=group)
    with pytest.raises(ValueError, match="drift apart") as error:
        smoother.perturbed()
    shared = SmoothOut(net := model(), 0.1, denoise=False, sync="shared", process_group=group)
    for _ in range(3):
        with shared.perturbed():
            pass
        shared.step()
    return str(error.value), weights(net)


def test_noise_that_stays_must_be_shared(processes):
    found = processes(refuse, size=2)
    for error, kept in found:
        assert error.startswith("denoise is False and sync 'independent' in 2 processes")
        assert "Give sync='shared'" in error
        assert torch.equal(kept, found[0][1])


def find_strength(group, losses):
    """Strengths that "auto" finds from a table of losses, (updates, ghost batches)."""
    smoother = SmoothOut(model(), AutoStrength(speed=0.1), process_group=group)
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    found = []
    for update in losses:
        for index in range(rank, len(update), size):
            with smoother.perturbed(stream=index):
                pass
            smoother.observe(update[index])
        smoother.step()
        found.append(smoother.strength)
    return found


@pytest.mark.parametrize("size", [2, 3, 4])
def test_auto_finds_the_same_strength(processes, size):
    table = 1 + torch.rand(8, 3, dtype=torch.float64)  # fewer ghost batches than the four processes
    table[2:5, 1:] += 3
    [alone] = processes(find_strength, table, size=1)
    assert len(set(alone)) > 4
    for found in processes(find_strength, table, size=size):
        assert found == alone


def test_settings_say_shared():
    states = [SmoothOut(model(), 0.1, sync=sync).state_dict() for sync in ("independent", "shared")]
    assert ["sync" in state["settings"] for state in states] == [False, True]
    with pytest.raises(ValueError, match="sync"):
        SmoothOut(model(), 0.1, sync="shared").load_state_dict(states[0])
    with pytest.raises(ValueError, match=r"sync is 'none'.*independent"):
        SmoothOut(model(), 0.1, sync="none")


def test_numbering(processes):
    assert list(itertools.chain(*processes(first_blocks, size=2))) == [0, 2, 1, 3]


def first_blocks(group):
    smoother = SmoothOut(model(), 0.1, process_group=group)
    found = []
    for _ in range(2):
        with smoother.perturbed():
            found.append(smoother._last_stream)
    return found
