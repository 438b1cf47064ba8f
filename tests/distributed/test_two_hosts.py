"""Two hosts: network namespaces that see each other through a pair of virtual interfaces and nothing else."""

import contextlib
import os
import shutil
import subprocess

import pytest
import torch
from launched import SECONDS, SMALL, command, torchrun
from safetensors.torch import load_file

from smoothout.cli.main import main

ADDRESSES = ("10.213.0.1", "10.213.0.2")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Names of two namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 to make network namespaces")
    names = [f"host{number}-{os.getpid()}" for number in (0, 1)]
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        links = [f"v{number}{os.getpid() % 10**8}" for number in (0, 1)]
        ip("link", "add", links[0], "netns", names[0], "type", "veth", "peer", "name", links[1], "netns", names[1])
        for name, link, address in zip(names, links, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, links, strict=True))


def test_two_hosts_make_the_run_of_one_process(hosts, tmp_path):
    assert main(["train", *command(SMALL, tmp_path, "alone")]) == 0
    folders = [tmp_path / "host0", tmp_path / "host1"]
    where = f"--nnodes 2 --nproc-per-node 2 --master-addr {ADDRESSES[0]} --master-port 29511"
    started = []
    for rank, ((name, link), folder) in enumerate(zip(hosts, folders, strict=True)):
        words = ["train", *command(SMALL, folder, "run")]
        options = f"{where} --node-rank {rank}"
        started.append(torchrun(options, words, inside=("ip", "netns", "exec", name), GLOO_SOCKET_IFNAME=link))
    texts = [each.communicate(timeout=SECONDS)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0], texts
    assert "processes: 4" in texts[0]
    assert not folders[1].exists()  # the second host's disk is left alone
    expected, found = (
        load_file(path / "checkpoints" / "last" / "model.safetensors")
        for path in (tmp_path / "alone", folders[0] / "run")
    )
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=1e-3, atol=1e-5), name
