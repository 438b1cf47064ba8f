"""What happens to the other processes when one is killed or raises."""

import time

import torch
from launched import SECONDS, SMALL, command, torchrun
from safetensors.torch import load_file

from smoothout.results.processes import state_of


def weights(folder):
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def test_a_killed_process_is_started_again_and_ends_with_the_same_weights(tmp_path):
    words = ["train", *command(SMALL, tmp_path, "whole", "killed")]
    never, once = {"TROUBLE": str(tmp_path / "never"), "TROUBLE_AT": "-1"}, str(tmp_path / "once")
    whole = torchrun("--standalone --nproc-per-node 2", words, **never)
    text = whole.communicate(timeout=SECONDS)[0]
    assert whole.returncode == 0, text
    words = ["train", *command(SMALL, tmp_path, "killed", "killed")]
    options = "--standalone --nproc-per-node 2 --max-restarts 1"
    again = torchrun(options, words, TROUBLE=once, TROUBLE_AT="12")  # in the second epoch
    text = again.communicate(timeout=SECONDS)[0]
    assert again.returncode == 0, text
    assert (tmp_path / "once").exists()
    assert text.count("run: ") == 2
    assert text.count("epoch 1/3") == 1  # kept
    assert text.count("epoch 2/3") == 1
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert state_of(tmp_path / "killed") == "finished"


def test_a_process_that_raises_ends_all_with_its_words(tmp_path):
    words = ["train", *command(SMALL, tmp_path, "run", "raising")]
    run = torchrun("--standalone --nproc-per-node 3", words, TROUBLE=str(tmp_path / "when"), TROUBLE_AT="6")
    text = run.communicate(timeout=SECONDS)[0]
    assert time.time() - float((tmp_path / "when").read_text()) < 20  # torch's own limit is half an hour
    assert run.returncode != 0
    assert "ValueError: a mistake in the network" in text
    assert state_of(tmp_path / "run") in ("vanished", "failed")


def test_a_mistake_in_an_option_is_said_once_by_each(tmp_path):
    words = ["train", *command(SMALL, tmp_path, "run"), "--holdout", "0"]
    run = torchrun("--standalone --nproc-per-node 2", words)
    text = run.communicate(timeout=SECONDS)[0]
    assert run.returncode != 0
    assert "smoothout train (process 0 of 2): holdout is 0" in text
    assert not (tmp_path / "run").exists()


def test_restarts_need_a_name(tmp_path):
    words = ["train", *SMALL.split(), "--model", "mlp", "--results-dir", str(tmp_path)]
    run = torchrun("--standalone --nproc-per-node 1 --max-restarts 1", words)
    text = run.communicate(timeout=SECONDS)[0]
    assert run.returncode != 0
    assert "torchrun may start the run again and there is no --name" in text
