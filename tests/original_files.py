"""Checkpoints in the form in which the original program wrote them: PyTorch 0.3 under Python 2, on a GPU."""

import pickle
import struct
import types
from collections import OrderedDict

import torch

from smoothout.train import models

#: Where a ResNet's layers stood a second time, by form.
FEATS = {
    "cifar": {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5},
    "imagenet": {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7},
}


class _Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 did, tensors as PyTorch 0.3 did, and storages as they lay on a GPU."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, text):
        raw = text.encode("ascii")
        short = len(raw) < 256
        self.write(
            pickle.SHORT_BINSTRING + bytes([len(raw)]) if short else pickle.BINSTRING + struct.pack("<i", len(raw))
        )
        self.write(raw)
        self.memoize(text)

    dispatch[str] = save_str

    def reducer_override(self, value):
        if isinstance(value, torch.Tensor):
            size, stride = tuple(value.size()), tuple(value.stride())
            return torch._utils._rebuild_tensor, (value._typed_storage(), value.storage_offset(), size, stride)
        return NotImplemented

    def dump(self, value):
        of_torch = getattr(self, "persistent_id", None)

        def on_gpu(item):
            found = of_torch(item)
            return found and tuple("cuda:0" if part == "cpu" else part for part in found)

        if isinstance(value, dict) and "state_dict" in value:
            self.persistent_id = on_gpu
        super().dump(value)


def _dump(value, file, protocol=2):
    _Python2Pickler(file, protocol).dump(value)


PYTHON2 = types.SimpleNamespace(Pickler=_Python2Pickler, dump=_dump, __name__="pickle")


def state_of(model, name, form="cifar", relu_noise=False):
    """The state dict that the original's model of this name would have had."""
    state = OrderedDict()
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            state[key] = value.clone()
    if "resnet" in name.lower():
        if relu_noise:
            for key, _ in model.named_modules():
                if key.rpartition(".")[2] == "relu":
                    state[f"{key}.noise"] = torch.rand(2, 16, 4, 4)
                    state[f"{key}.device_flag"] = torch.zeros(1, 1)
        for key in list(state):
            first, _, rest = key.partition(".")
            if first in FEATS[form]:
                state[f"feats.{FEATS[form][first]}.{rest}"] = state[key]
    return state


def write(path, name, model, *, config="", epoch=90, form="cifar", relu_noise=False, parallel=False):
    """Write ``model_best.pth.tar`` for a network."""
    state = state_of(model, name, form, relu_noise)
    if parallel:
        state = OrderedDict((f"module.{key}", value) for key, value in state.items())
    content = {
        "epoch": epoch,
        "model": name,
        "config": config,
        "state_dict": state,
        "best_prec1": 91.25,
        "regime": {0: {"optimizer": "SGD", "lr": 0.4, "weight_decay": 1e-4, "momentum": 0.9}, 81: {"lr": 0.04}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, pickle_module=PYTHON2, pickle_protocol=2, _use_new_zipfile_serialization=False)
    return path


def network(name, shape, classes, **options):
    """A network whose running statistics are not those of the start."""
    model = models.build(name, shape, classes, 5, **options)
    for key, value in model.named_buffers():
        if "running" in key:
            value.uniform_(0.5, 1.5)
    return model
