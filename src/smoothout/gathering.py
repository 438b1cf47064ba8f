"""Modules that gather their weights for each use, as torch's ``fully_shard`` makes them, and wrappers that are refused.

Such a module has its shards registered, or, between a gathering and its end, plain full weights. Noise goes to the
shards, so that what was gathered before must be given up, or the next forward would not see it. The public
``reshard()`` does that but in a few states, for which the internals are looked at; each of these looks is tested.
"""

import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def gathering(modules: Iterable[nn.Module]) -> list[Any]:
    """Those of the modules that gather."""
    found = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(found, "FSDPModule", None)
    return [] if kind is None else [module for module in modules if isinstance(module, kind)]


def reshard(modules: Iterable[Any]) -> None:
    """Give up what modules have gathered, so that the next forward gathers what the shards hold then."""
    for module in modules:
        for group in _groups(module):
            if group._all_gather_result is not None:  # asked for ahead, by unshard(async_op=True)
                group.wait_for_unshard()
        module.reshard()
        for group in _groups(module):
            if not group.is_sharded:  # an exception left it within its forward, where reshard() may do nothing
                group._to_sharded()
        # Gathering may wait for that event alone, which was before the noise.
        module._get_fsdp_state()._state_ctx.post_optim_event = None


def gathered(modules: Iterable[Any]) -> list[Tensor]:
    """The full weights of past forwards, whose values are gone; autograd has them in its graphs, with versions."""
    parameters = [parameter for module in modules for group in _groups(module) for parameter in group.fsdp_params]
    found = (getattr(parameter, "_unsharded_param", None) for parameter in parameters)
    return [tensor for tensor in found if tensor is not None]


def _groups(module: Any) -> list[Any]:
    state = module._get_fsdp_state()
    found = getattr(state, "_fsdp_param_groups", None)
    if found is None:  # older releases have one or none
        found = [state._fsdp_param_group] if state._fsdp_param_group is not None else []
    return list(found)


def refuse_wrappers(model: nn.Module) -> None:
    """Raise for a model in a wrapper that keeps other copies of the weights than its parameters."""
    for module in model.modules():
        if isinstance(module, nn.DataParallel):
            raise TypeError(
                "the model is in nn.DataParallel, whose replicas are copied anew in each forward; expected a plain "
                "model. Use DistributedDataParallel, one process per device."
            )
        if _is(module, "torch.distributed.fsdp", "FullyShardedDataParallel"):
            raise TypeError(
                "the model is in FullyShardedDataParallel, which keeps weights in flat parameters of its own; expected "
                "a plain model or one of fully_shard. Use torch.distributed.fsdp.fully_shard."
            )
        if _is(module, "deepspeed", "DeepSpeedEngine"):
            raise TypeError(
                "the model is in DeepSpeed's engine, which keeps master copies and partitions of the weights and steps "
                "inside its own calls, so that noise on the parameters would be overwritten or kept; expected a plain "
                "model. Use torch.distributed.fsdp.fully_shard, or DistributedDataParallel."
            )


def refuse_parameter(name: str, parameter: Tensor) -> None:
    """Raise for a parameter whose values lie in another tensor, which a wrapper keeps."""
    if hasattr(parameter, "ds_id"):
        raise TypeError(
            f"parameter {name!r} is partitioned by DeepSpeed (ZeRO-3), whose engine keeps its values and steps inside "
            f"its own calls; expected a plain one. Use torch.distributed.fsdp.fully_shard, or DistributedDataParallel."
        )
    if getattr(parameter, "_is_flat_param", False):
        raise TypeError(
            f"parameter {name!r} is a flat one of FullyShardedDataParallel; expected one of a plain model or of "
            f"fully_shard. Use torch.distributed.fsdp.fully_shard."
        )


def _is(module: nn.Module, package: str, name: str) -> bool:
    """Whether a module is of a class of this name from a package, which need not be installed."""
    return any(
        each.__name__ == name and (each.__module__ == package or each.__module__.startswith(f"{package}."))
        for each in type(module).__mro__
    )
