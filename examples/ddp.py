"""A training loop of one's own in several processes: DistributedDataParallel, and noise for every ghost batch.

    torchrun --nproc-per-node 2 examples/ddp.py

The weights do not depend on the number of processes, up to rounding.
"""

import contextlib
import itertools

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from smoothout import SmoothOut, ghost_batches

BATCH, GHOST, UPDATES = 120, 16, 30


def main() -> None:
    """Train, and print the loss of the clean weights."""
    dist.init_process_group("gloo")  # "nccl" for models on GPUs
    rank, world = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)  # all processes begin with equal models, and draw equal batches
    samples = torch.randn(1000, 20)
    classes = (samples @ torch.randn(20, 5)).argmax(dim=1)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 5))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    smoother = SmoothOut(model, strength=0.05, seed=0)  # knows the processes, and numbers ghost batches over all

    for _ in range(UPDATES):
        batch = torch.randint(0, len(samples), (BATCH,))
        pieces = ghost_batches(samples[batch], classes[batch], size=GHOST)
        own = list(itertools.islice(pieces, rank, None, world))
        assert own, "a process without a ghost batch would leave the others waiting; use fewer processes"
        with smoother.perturbed() as noise:
            for index, (x, y) in enumerate(noise.each(own)):
                last = index == len(own) - 1
                with contextlib.nullcontext() if last else parallel.no_sync():  # one reduction an update
                    # DDP takes the mean over processes: times their number it is the sum.
                    (cross_entropy(parallel(x), y) * (len(x) / BATCH) * world).backward()
        optimizer.step()
        optimizer.zero_grad()
        smoother.step()

    if rank == 0:
        with torch.no_grad():
            print(f"final loss: {cross_entropy(model(samples), classes):.9f}")
    dist.barrier()  # nobody leaves while another still talks
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
