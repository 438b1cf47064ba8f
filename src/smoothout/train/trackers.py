"""Experiment trackers, through Accelerate: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from smoothout.train.config import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator

Tracker = Literal["tensorboard", "wandb", "mlflow"]


def check(names: Sequence[Tracker]) -> None:
    """Raise unless each tracker is installed; Accelerate would leave a missing one out without a word.

    Raises:
        ValueError: If one is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"track names {name}, which is not installed. pip install {name}, or leave it out.")


def start(accelerator: "Accelerator", settings: Settings, run_name: str) -> None:
    """Open the trackers that the accelerator was made with, and tell them the settings.

    Raises:
        RuntimeError: If one cannot start.
    """
    config = {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in settings.flat().items()
        if value is not None
    }
    own = {"wandb": {"name": run_name}, "mlflow": {"run_name": run_name}}
    try:
        accelerator.init_trackers("smoothout", config, init_kwargs=own)
    except Exception as error:  # each library raises its own
        raise RuntimeError(
            f"a tracker could not start: {type(error).__name__}: {str(error).strip()} Set it up (WANDB_MODE=offline or "
            f"wandb login; MLFLOW_TRACKING_URI), then go on with --resume; or leave --track out."
        ) from error


def end(accelerator: "Accelerator") -> None:
    """Close them; Accelerate's own end_training would end torch.distributed, too, which later runs need."""
    for tracker in accelerator.trackers:
        tracker.finish()


def log(accelerator: "Accelerator", row: Mapping[str, Any], epoch: int) -> None:
    """Tell the trackers the numbers of an epoch; what was not evaluated is left out."""
    accelerator.log({name: value for name, value in row.items() if math.isfinite(value)}, step=epoch)
