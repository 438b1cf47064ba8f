"""Noise on weights that fully_shard keeps in shards: torchrun --nproc-per-node 2 examples/fsdp.py (CPU or GPUs)."""

import os

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from smoothout import AdaSmoothOut, ghost_batches


def main() -> None:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).to(kind)
    mesh = init_device_mesh(kind, (size,))
    fully_shard(model[2], mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    smoother = AdaSmoothOut(model, strength=0.1)  # every process draws noise for its own shards

    x = torch.randn(512, 20, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] * x[:, 1] > 0).long()
    x, y = x[rank::size].to(kind), y[rank::size].to(kind)  # this process's samples
    for epoch in range(20):
        total = torch.zeros((), device=kind)
        with smoother.perturbed() as noise:
            for inputs, targets in noise.each(ghost_batches((x, y), size=64)):
                loss = nn.functional.cross_entropy(model(inputs), targets) * (len(targets) / len(y))
                loss.backward()
                total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        smoother.step()
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch}: loss {float(total) / size:.4f}")
    dist.barrier()  # nobody leaves while another still talks
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
