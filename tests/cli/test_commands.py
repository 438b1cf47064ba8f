"""The commands, run in this process on small data."""

import csv
import json
from pathlib import Path

import pytest

from smoothout.cli.main import main

USER = Path(__file__).parents[1] / "train" / "user_code.py"
SMALL = ["--batch-size", "64", "--ghost-batch-size", "24", "--epochs", "2"]
CODE = ["--dataset", f"{USER}:blobs", "--model", f"{USER}:net"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def fails(capsys, *words, status=2):
    assert main(words) == status
    return capsys.readouterr().err


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert "evaluate   evaluate a checkpoint" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("smoothout 0.")
    assert "'trian' is no command; expected train, evaluate, compare" in fails(capsys, "trian")


@pytest.mark.parametrize("command", ["train", "evaluate", "compare"])
def test_help_of_a_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: smoothout {command}" in text
    assert "default:" in text


def test_train_evaluate_resume(capsys, here):
    assert main(["train", *CODE, *SMALL, "--name", "a", "--strength", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert "learning rate: 0.08165 = 0.05 (default) by rule 'sqrt' from base batch 24" in printed
    assert "epoch 2/2" in printed
    assert "\x1b" not in printed  # plain lines in a pipe
    run = here / "runs" / "a"
    assert {p.name for p in run.iterdir()} == {
        "config.json",
        "process.json",
        "log.txt",
        "metrics.csv",
        "result.json",
        "checkpoints",
    }
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"initial", "last", "best"}
    assert printed.strip() in (run / "log.txt").read_text()
    with (run / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2

    assert "the model is 'vgg'" in fails(capsys, "train", *CODE[:2], "--model", "vgg", "--name", "z")
    assert not (here / "runs" / "z").exists()  # a mistake leaves no folder behind
    assert "a exists. Use --resume" in fails(capsys, "train", *CODE, *SMALL, "--name", "a")
    assert main(["train", *CODE, "--name", "a", "--resume"]) == 0
    assert "is finished" in capsys.readouterr().out
    error = fails(capsys, "train", *CODE, "--name", "a", "--resume", "--lr", "0.3")
    assert "lr is 0.3 and the run was started without it; a resumed run goes on exactly" in error
    error = fails(capsys, "train", "--name", "a", "--resume", "--model", CODE[3])
    assert "name it again: --dataset" in error

    numbers = here / "numbers.json"
    words = ["evaluate", str(run), *CODE, "--split", "all", "--strength", "0.02", "--draws", "3"]
    assert main([*words, "--json", str(numbers)]) == 0
    table = capsys.readouterr().out
    assert "holdout" in table
    assert " +- " in table
    record = json.loads(numbers.read_text())
    assert [each["split"] for each in record["evaluations"]] == ["train", "holdout", "test"]
    assert "--model" in fails(capsys, "evaluate", str(run), "--dataset", CODE[1])
    assert "is no checkpoint; expected a folder" in fails(capsys, "evaluate", "runs")


def test_an_interrupted_run_is_resumed_by_its_name_alone(capsys, monkeypatch):
    from smoothout.train import loop

    words = ["train", *CODE, *SMALL]
    original, calls = loop._keep, []

    def interrupted(*arguments):
        best = original(*arguments)
        calls.append(best)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return best

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_keep", interrupted)
        error = fails(capsys, *words, "--name", "a", status=130)
        assert f"Go on with: smoothout train --name a {' '.join(CODE)} --resume" in error
    assert main(["train", "--name", "a", "--resume", *CODE]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    assert main([*words, "--name", "b"]) == 0
    assert (
        Path("runs/a/metrics.csv").read_text().split("\n")[2].split(",")[:10]
        == (Path("runs/b/metrics.csv").read_text().split("\n")[2].split(",")[:10])
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--resume"], "--resume needs --name"),
        (["--resume", "--overwrite", "--name", "a"], "contradict each other"),
        (["--resume", "--name", "nothing"], "holds no run"),
        (["--dataset", "cifar"], "the dataset is 'cifar'; expected one of cifar10, cifar100, digits"),
        ([*CODE[:2], "--model", "vgg"], "the model is 'vgg'; expected one of"),
        ([*CODE[:2], "--optimizer", "sgd"], "the optimizer is 'sgd'; expected one of ASGD"),
        (["--dataset", "imagefolder", "--data-dir", "none"], "has none of train, val and test"),
        ([*CODE, "--precision", "fp16", "--device", "cpu"], "silently be fp32"),
    ],
)
def test_mistakes_become_a_line(words, text, capsys):
    error = fails(capsys, "train", *words)
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--scale", "layer"], ["--strength", "much"], ["--ghost-size", "3"], ["--holdout", "2"]]
)
def test_mistakes_in_options(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *words])
    assert stopped.value.code == 2
    assert words[0].strip("-") in capsys.readouterr().err.replace("_", "-")


ARMS = f"""
against = "plain"
seeds = [0, 1, 2]
[common]
dataset = "{USER}:blobs"
model = "{USER}:net"
batch_size = 64
ghost_batch_size = 24
epochs = 2
[arms."plain"]
[arms."plain + SmoothOut"]
strength = 0.05
denoise = true
milestones = [1]
[arms."diverging"]
model = "{USER}:diverging"
against = "plain + SmoothOut"
"""


def test_compare(capsys, here):
    Path("arms.toml").write_text(ARMS)
    words = ["compare", "arms.toml", "--name", "c", "--seeds", "3", "4", "5"]
    assert main(words) == 1  # one arm fails
    printed = capsys.readouterr().out
    assert "FAILED: FloatingPointError: the training loss is" in printed
    folder = here / "runs" / "c"
    rows = json.loads((folder / "results.json").read_text())
    assert [(row["arm"], row["seed"]) for row in rows] == [
        (a, s) for a in ("plain", "plain + SmoothOut") for s in (3, 4, 5)
    ]
    assert {"test_accuracy_last", "test_accuracy_best", "train_accuracy_last", "updates"} <= rows[0].keys()
    with (folder / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    differences = [rows[i + 3]["test_accuracy_last"] - rows[i]["test_accuracy_last"] for i in range(3)]
    assert f"plain + SmoothOut against plain: {sum(differences) / 3:+.2f} points" in printed
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "plain-smoothout" / "4" / "checkpoints" / "best").is_dir()

    assert "c exists. Use --resume" in fails(capsys, *words)
    assert "holds a comparison of other arms or seeds" in fails(capsys, *words[:4], "--resume")
    assert "nothing holds no comparison" in fails(capsys, "compare", "arms.toml", "--name", "nothing", "--resume")
    stamp = (folder / "plain" / "3" / "metrics.csv").stat().st_mtime
    assert main([*words, "--resume"]) == 1
    assert (folder / "plain" / "3" / "metrics.csv").stat().st_mtime == stamp


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [", "is no TOML"),
        ("[common]\nlr = 1", "has no arms; expected tables such as"),
        ("[arms.a]\nseed = 3", "arm 'a' of arms.toml has a seed; expected seeds = [...] for all arms"),
        ("seeds = [1, 1]\n[arms.a]", "the seeds are 1, 1; expected each once"),
        ("[armz.a]", "the part of arms.toml is 'armz'; expected one of against, arms, common, seeds"),
        ('[arms.a]\nagainst = "b"', "arm 'a' is against 'b'; expected one of a"),
        ("[arms.a]\n[arms.A]", "two arms share a folder name: a, A"),
    ],
)
def test_files_of_arms_that_do_not_fit(text, message, capsys):
    Path("arms.toml").write_text(text)
    assert message in fails(capsys, "compare", "arms.toml")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--resume", "--overwrite"], "contradict each other"),
        (["--resume"], "--resume needs --name"),
        (["--jobs", "3"], "jobs is 3; expected a whole number >= 1 and < 3"),
        (["--name", "photos"], "exists. Use --resume"),
        (["--name", "photos", "--overwrite"], "was not made by smoothout"),
    ],
)
def test_mistakes_in_comparisons(words, text, capsys):
    Path("arms.toml").write_text("[arms.a]\n[arms.b]")
    cat = Path("runs/photos/cat.jpg")
    cat.parent.mkdir(parents=True)
    cat.touch()
    try:
        error = fails(capsys, "compare", "arms.toml", *words)
    except SystemExit:
        error = capsys.readouterr().err
    assert text in " ".join(error.split())
    assert cat.exists()


def test_on_a_terminal_there_are_bars_and_a_live_line(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["train", *CODE, *SMALL, "--name", "live"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b[" in printed
    assert "hold-out" in printed
    assert "8/8" in printed
    assert "updates" in printed


def test_an_option_that_no_arm_can_have(capsys):
    Path("arms.toml").write_text("[arms.a]\nlearning_rate = 1")
    with pytest.raises(SystemExit):
        main(["compare", "arms.toml"])
    assert "compare: arm 'a'" in capsys.readouterr().err
