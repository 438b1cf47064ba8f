"""Wrappers that keep the weights elsewhere are refused, each with a way out."""

import pytest
import torch
from torch import nn

from smoothout import SmoothOut


def wrapper(name, module, *bases):
    """A module of a class that is told by its name and home."""
    return type(name, (*bases, nn.Module), {"__module__": module})()


ENGINE = wrapper("DeepSpeedEngine", "deepspeed.runtime.engine")


@pytest.mark.parametrize("model", [
    ENGINE,
    nn.Sequential(ENGINE),
    wrapper("PipelineEngine", "deepspeed.runtime.pipe.engine", type(ENGINE)),
])  # fmt: skip
def test_the_engine_of_deepspeed(model):
    with pytest.raises(TypeError) as error:
        SmoothOut(model, 0.1)
    assert str(error.value) == (
        "the model is in DeepSpeed's engine, which keeps master copies and partitions of the weights and steps inside "
        "its own calls, so that noise on the parameters would be overwritten or kept; expected a plain model. Use "
        "torch.distributed.fsdp.fully_shard, or DistributedDataParallel."
    )


def test_a_class_of_that_name_from_elsewhere():
    SmoothOut(wrapper("DeepSpeedEngine", "deepspeedy.engine"), 0.1)


@pytest.mark.parametrize("pairs", [False, True])
def test_parameters_of_wrappers(pairs):
    for attribute, value, text in (
        ("ds_id", 0, "parameter 'weight' is partitioned by DeepSpeed (ZeRO-3), whose engine keeps its values and steps "
         "inside its own calls; expected a plain one. Use torch.distributed.fsdp.fully_shard, or"),
        ("_is_flat_param", True, "parameter 'weight' is a flat one of FullyShardedDataParallel; expected one of a "
         "plain model or of fully_shard. Use torch.distributed.fsdp.fully_shard."),
    ):  # fmt: skip
        net = nn.Linear(2, 2)
        setattr(net.weight, attribute, value)
        with pytest.raises(TypeError) as error:
            SmoothOut(list(net.named_parameters()) if pairs else net, 0.1)
        assert str(error.value).startswith(text)


def test_data_parallel():
    with pytest.raises(TypeError, match=r"nn\.DataParallel.*Use DistributedDataParallel"):
        SmoothOut(nn.DataParallel(nn.Linear(2, 2)), 0.1)


def test_a_plain_model_gathers_nothing():
    smoother = SmoothOut(nn.Linear(2, 2), 0.1)
    with smoother.perturbed():
        assert smoother._gathering == smoother._sharded == []
    assert torch.equal(smoother._locals[0], smoother._parameters[0])
