"""Which device a run or an evaluation uses."""

import torch


def choose(name: str) -> torch.device:
    """The device of ``auto`` (an accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:INDEX``.

    Raises:
        RuntimeError: If it is not there.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    found = torch.cuda.device_count()
    index = int(name.partition(":")[2] or 0)
    if index >= found:
        raise RuntimeError(f"device is {name!r} and torch finds {found} CUDA devices. Use --device auto or cpu.")
    torch.cuda.set_device(index)  # where "cuda" alone points to from now on
    return torch.device("cuda", index)
