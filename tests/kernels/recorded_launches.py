"""What is launched for noise and restore is what Triton's own dispatch would launch: by a driver that records.

    python -m pytest tests/kernels/recorded_launches.py

Kernels are compiled for an H100, which needs no GPU. ``test_gpu.py`` runs it in a process of its own, which keeps the
driver.
"""

import struct

import pytest
import torch
import triton
import triton.language as tl
from torch import nn
from triton.backends.compiler import GPUTarget

from smoothout.kernels import gpu
from smoothout.kernels.on_gpu import FusedOnGPU
from smoothout.noise.draws import NoiseKey
from smoothout.weights import all_weights

METADATA = 6  # of a launch: a new object for each


class Recording:
    """A driver without a device."""

    def __init__(self):
        self.launched = []
        self.utils, self.launcher_cls = self, lambda _source, _metadata: self.launch

    def launch(self, *arguments):
        self.launched.append(arguments)

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 7

    def get_device_properties(self, _device):
        return {"max_shared_mem": 232448}

    def load_binary(self, name, *_):
        return 1, hash(name), 32, 0, 1024

    def unload_module(self, _module):
        pass


DRIVER = Recording()  # one, since compiled kernels keep it
triton.runtime.driver.set_active(DRIVER)


@pytest.fixture
def launched():
    DRIVER.launched.clear()
    return DRIVER.launched


def same(one, other):
    return len(one) == len(other) and all(
        a is b or a == b for index, (a, b) in enumerate(zip(one, other, strict=True)) if index != METADATA
    )


@pytest.mark.parametrize(("scale", "number"), [("none", 0), ("filter", 2)])
def test_what_is_launched_is_what_triton_would_launch(launched, scale, number):
    weights = all_weights([("0", nn.Parameter(torch.randn(5, 20))), ("1", nn.Parameter(torch.randn(7)))])
    kernel = FusedOnGPU(weights, scale, "uniform")
    kernel.perturb(NoiseKey(2**63 + 3, 5, 1), 0.3)  # numbers that Triton would take for 32 bits long, too
    kernel.restore()
    grid, where = (len(kernel._units),), (kernel._table, kernel._taken)
    [amplitude] = struct.unpack("<q", struct.pack("<d", 0.3))
    constants = {"SCALE": number, "NORMAL": False, "PERMUTED": False, "ELEMENT": tl.float32}
    gpu.perturb[grid](*where, 3 - 2**63, 5, 1, 0, amplitude, **constants, enable_fp_fusion=False)
    gpu.restore[grid](*where, ELEMENT=tl.float32, enable_fp_fusion=False)
    assert len(launched) == 4
    assert same(launched[0], launched[2])
    assert same(launched[1], launched[3])


def test_numbers_of_any_size_go_to_one_kernel(launched):
    gpu.perturb.device_caches.clear()
    kernel = FusedOnGPU(all_weights([("0", nn.Parameter(torch.randn(7)))]), "none", "uniform")
    for key in (NoiseKey(0, 0), NoiseKey(2**64 - 1, 2**40, 2**32 - 1, 1)):
        kernel.perturb(key, 0.5)
    assert len({function for _, _, _, _, function, *_ in launched}) == 1
    [compiled] = gpu.perturb.device_caches[0][0].values()
    assert list(compiled.src.signature.values())[2:7] == ["i64"] * 5
