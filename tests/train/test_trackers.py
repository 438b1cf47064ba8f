"""Trackers through Accelerate, each for real, offline."""

import importlib.util
import time
from pathlib import Path

import pytest

from smoothout.cli.main import main
from smoothout.train import trackers

USER = Path(__file__).with_name("user_code.py")
WORDS = ["train", "--dataset", f"{USER}:blobs", "--model", f"{USER}:net", "--batch-size", "64", "--ghost-batch-size"]
WORDS += ["24", "--epochs", "3", "--evaluate-every", "2", "--name", "tracked", "--device", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tensorboard(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*WORDS, "--track", "tensorboard"]) == 0
    events = EventAccumulator(str(here / "runs" / "tracked" / "smoothout")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("holdout_loss")] == [2, 3]  # what was not evaluated is left out


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflow(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / "mlruns").as_uri())
    assert main([*WORDS, "--track", "mlflow"]) == 0
    [losses] = (here / "mlruns").glob("*/*/metrics/train_loss")
    assert [line.split()[2] for line in losses.read_text().splitlines()] == ["1", "2", "3"]
    [seed] = (here / "mlruns").glob("*/*/params/seed")
    assert seed.read_text() == "0"


def test_wandb(here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert main([*WORDS, "--track", "wandb"]) == 0
    [run] = (here / "wandb").glob("offline-run-*/*.wandb")
    # A process of its own writes the file, and may end a moment after the run has.
    deadline = time.monotonic() + 30
    while b"train_loss" not in run.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"train_loss" in run.read_bytes()


def test_a_missing_tracker_is_told(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else found(name, *rest)
    )
    assert main([*WORDS, "--track", "wandb"]) == 2
    assert "track names wandb, which is not installed. pip install wandb, or leave it out." in capsys.readouterr().err
    assert not Path("runs").exists()


def test_every_tracker_is_one_of_accelerates():
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert set(trackers.Tracker.__args__) <= set(LOGGER_TYPE_TO_CLASS)
