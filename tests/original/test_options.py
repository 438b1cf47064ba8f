"""Every flag of the original, once with another value than its default: what it changes here, and nothing else."""

import json
from pathlib import Path

import pytest
import torch
from original_files import write
from PIL import Image
from safetensors.torch import load_file

from smoothout.cli import landscape, sharpness
from smoothout.cli.arguments import parse
from smoothout.original.__main__ import run
from smoothout.original.options import OPTIONS, PROGRAMS, markdown
from smoothout.original.programs import translate

HERE = Path(__file__)
USER = HERE.parents[1] / "train" / "user_code.py"
DATA, MODEL = f"{USER}:blobs", f"{USER}:net"
BASE = ["--dataset", DATA, "--model", MODEL, "-b", "64", "-mb", "24", "--epochs", "2", "--ss", "0.05"]
ROWS = {option.name: option for option in OPTIONS}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def settings(name, folder="TrainingResults"):
    record = json.loads((Path(folder) / name / "config.json").read_text())
    return {key: value for part in record.values() if isinstance(part, dict) for key, value in part.items()}


def weights(name):
    return load_file(Path("TrainingResults") / name / "checkpoints" / "last" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def rows_of(name):
    return (Path("TrainingResults") / name / "metrics.csv").read_text().splitlines()[1:]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """What the base run ended with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("base"))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert run(["main_gbn", *BASE, "--save", "a"]) == 0
        assert (
            run(["main_normal", *(word for word in BASE if word not in ("-mb", "24", "--ss", "0.05")), "--save", "n"])
            == 0
        )
        return {"settings": settings("a"), "weights": weights("a"), "normal": settings("n")}


# Flags of training whose effect is a setting of the run and other weights at its end.
TRAINS = {
    "mini_batch_size": (["-mb", "32"], {"ghost_batch_size": 32}),
    "batch_multiplier": (["-bm", "2"], {"accumulation": 2}),
    "lr_bb_fix": (["--no-lr_bb_fix"], {"lr_rule": "none"}),
    "lr_fix_policy": (["--lr_fix_policy", "linear"], {"lr_rule": "linear"}),
    "regime_bb_fix": (["--regime_bb_fix"], {"regime_adaptation": True}),
    "regime_bb_multi": (["-rbm", "2"], {"regime_multiplier": 2}),
    "optimizer": (["--optimizer", "Adam"], {"optimizer": "Adam", "lr": 0.001}),
    "lr": (["--learning_rate", "0.2"], {"lr": 0.2}),
    "momentum": (["--momentum", "0.1"], {"momentum": 0.1}),
    "weight_decay": (["--wd", "0.3"], {"weight_decay": 0.3}),
    "sharpness_smoothing": (["--sharpness-smoothing", "0.2"], {"strength": 0.2}),
    "noise_type": (["--noise-type", "normal"], {"distribution": "normal"}),
    "adapt_type": (["--adapt-type", "filter"], {"scale": "filter"}),
    "smoothing_type": (["--smoothing-type", "tanh"], {"noise_schedule": "tanh"}),
    "exclude_bn": (["--no-exclude-bn"], {"exclude_bn": False}),
    "denoise": (["--no-denoise"], {"denoise": False}),
    "model_config": (["--model_config", "{'width': 8}"], {"model_config": "{'width': 8}"}),
    "type": (["--type", "torch.cuda.HalfTensor"], {"precision": "bf16"}),
    "epochs": (["--epochs", "3"], {"epochs": 3}),
    "start_epoch": (["--start-epoch", "1"], {"start_epoch": 1}),
    "batch_size": (["--b", "48"], {"batch_size": 48}),
    "model": (["-a", "mlp"], {"model": "mlp"}),
    "dataset": (["--dataset", f"{USER}:other_blobs"], {"dataset": f"{USER}:other_blobs"}),
}


@pytest.mark.parametrize("name", TRAINS)
def test_a_flag_of_training(name, base):
    words, changes = TRAINS[name]
    assert set(words) & {*ROWS[name].flags, f"--no-{ROWS[name].flags[0].removeprefix('--')}"}
    assert run(["main_gbn", *BASE, *words, "--save", "a"]) == 0
    assert settings("a") == base["settings"] | changes
    assert not same(weights("a"), base["weights"])


def test_flags_that_need_another_one(base):
    assert run(["main_gbn", *BASE, "--smoothing-type", "anneal", "--save", "a"]) == 0
    assert run(["main_gbn", *BASE, "--smoothing-type", "anneal", "--ai", "0.9", "--save", "b"]) == 0
    assert run(["main_gbn", *BASE, "--smoothing-type", "tanh", "--save", "c"]) == 0
    assert run(["main_gbn", *BASE, "--smoothing-type", "tanh", "--ts", "3", "--save", "d"]) == 0
    assert settings("b") == base["settings"] | {"noise_schedule": "anneal", "anneal_index": 0.9}
    assert settings("d") == base["settings"] | {"noise_schedule": "tanh", "tanh_scale": 3.0}
    assert not same(weights("a"), weights("b"))
    assert not same(weights("c"), weights("d"))


def test_flags_that_leave_the_weights_alone(base, capsys):
    assert run(["main_gbn", *BASE, "--save", "a", "--results_dir", "elsewhere"]) == 0
    assert settings("a", "elsewhere") == base["settings"]
    for words, changes in (
        (["-j", "3"], {"workers": 3}),
        (["--dropout", "0.5"], {}),
        (["--gpus", "1"], {}),
        (["--save_all"], {"save_all": True}),
        (["-p", "2"], {}),
    ):
        name = words[0].strip("-")
        assert run(["main_gbn", *BASE, *words, "--save", name]) == 0
        printed = capsys.readouterr()
        assert settings(name) == base["settings"] | changes
        assert same(weights(name), base["weights"])
        if name == "dropout":
            assert "notice: --dropout has no effect in main_gbn: No effect in the original, which" in printed.err
        assert printed.out.count("of this epoch so far") == (4 if name == "p" else 0)
    assert "torch finds no CUDA device; this runs on the CPU" in printed.err
    assert (Path("TrainingResults") / "save_all" / "checkpoints" / "epoch-1").is_dir()
    assert not (Path("TrainingResults") / "p" / "checkpoints" / "epoch-1").exists()


def test_main_normal_has_no_ghost_batches(base):
    expected = {"ghost_batch_size": 64, "base_batch": 256, "seed": 123, "strength": 0.0}
    assert base["normal"] == base["settings"] | expected


def tree(folder, count=8):
    for split in ("train", "val"):
        for index, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for sample in range(count):
                colour = (40 * index + 20 * sample, 100, 50 + 7 * sample)
                image = Image.new("RGB", (12, 12), colour)
                image.putpixel((sample, index), (255, 255, 255))
                image.save(folder / split / name / f"{sample}.png")
    return folder


def test_flags_for_images(here):
    words = ["--dataset", str(tree(here / "tree")), "-b", "8", "-mb", "4", "--epochs", "1", "-a", "resnet"]
    words += ["--model_config", "{'depth': 8}"]
    for name, more in (
        *(("plain", []), ("augment", ["--no-augment"]), ("relu", ["--relu_noise", "0.3"])),
        ("size", ["--input_size", "16"]),
    ):
        assert run(["main_gbn", *words, *more, "--save", name]) == 0
    plain = settings("plain")
    assert plain["dataset"] == "imagefolder"
    assert settings("augment") == plain | {"augment": False}
    assert settings("relu") == plain | {"relu_noise": 0.3}
    assert settings("size") == plain | {"input_size": 16}
    assert "samples of 3x16x16" in (Path("TrainingResults") / "size" / "log.txt").read_text()
    assert not any(same(weights("plain"), weights(name)) for name in ("augment", "relu", "size"))


def test_resume(base, here, capsys, monkeypatch):
    from smoothout.train import loop

    kept = loop._keep

    def interrupted(*arguments):
        kept(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_keep", interrupted)
        assert run(["main_gbn", *BASE, "--save", "a"]) == 130
    assert len(rows_of("a")) == 1
    capsys.readouterr()
    # The checkpoint's folder means the run's.
    assert run(["main_gbn", *BASE, "--resume", "TrainingResults/a/checkpoints/last"]) == 0
    assert same(weights("a"), base["weights"])
    assert not (Path("TrainingResults") / "a" / "checkpoints" / "last" / "metrics.csv").exists()
    assert "--epochs is left out: a resumed run keeps the settings that it was started" in capsys.readouterr().err

    path = write(here / "old" / "model_best.pth.tar", "net", torch.nn.Linear(6, 4), epoch=1)
    file = here / "linear.py"
    file.write_text("from torch import nn\ndef model(num_classes):\n    return nn.Linear(6, num_classes)\n")
    for resumed in (path, path.parent):  # a file, or its folder
        words = [*BASE, "--model", f"{file}:model", "--save", f"from-{resumed.name}"]
        assert run(["main_gbn", *words, "--resume", str(resumed)]) == 0
        assert len(rows_of(f"from-{resumed.name}")) == 1  # the second of two epochs
        initial = Path("TrainingResults") / f"from-{resumed.name}" / "checkpoints" / "initial" / "model.safetensors"
        state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
        assert same(load_file(initial), state)
    capsys.readouterr()
    assert run(["main_gbn", *BASE, "--resume", "nothing"]) == 2
    assert "nothing is neither a run nor a checkpoint; expected a folder or" in capsys.readouterr().err


def test_evaluate(base, here, capsys):
    assert run(["main_gbn", *BASE, "--save", "a"]) == 0
    words = ["--dataset", DATA, "--model", MODEL, "--evaluate", "TrainingResults/a"]
    capsys.readouterr()
    tables = {}
    for name, program, more in (
        *(("val", "evaluate", []), ("train", "evaluate", ["--mode", "train"]), ("main", "main_gbn", [])),
        *(("noise", "evaluate", ["--ss", "0.3"]), ("batch", "evaluate", ["--ss", "0.3", "-b", "20"])),
        ("ghost", "evaluate", ["-mb", "2"]),
    ):
        assert run([program, *words, *more]) == 0
        printed = capsys.readouterr()
        tables[name] = [line for line in printed.out.splitlines() if "│" in line]
        if name == "ghost":
            assert "--mini-batch-size has no effect in evaluate" in printed.err
    assert "test" in tables["val"][0]
    assert "train" in tables["train"][0]
    assert tables["main"] == tables["val"] == tables["ghost"]
    assert len({tables[name][0] for name in ("val", "train", "noise", "batch")}) == 4
    assert run(["evaluate", "--dataset", DATA, "--model", MODEL]) == 2
    assert "evaluate needs a checkpoint. Name it: --evaluate FILE." in capsys.readouterr().err
    assert run(["main_gbn", *words, "--ss", "0.1"]) == 0
    assert "notice: --sharpness-smoothing is left out: main_gbn evaluates without" in capsys.readouterr().err
    assert run(["evaluate", *words, "--mode", "both"]) == 2
    assert "mode is 'both'; expected val or train" in capsys.readouterr().err


def command(*words):
    return translate(words[0], words[1:]).words


def test_evaluation_noise_is_on_batch_norm_too():
    words = command("evaluate", "--evaluate", "x", "--ss", "0.006", "--augment")
    assert words[:2] == ("evaluate", "x")
    assert {"--no-exclude-bn", "--augment"} <= set(words)
    assert words[words.index("--strength") + 1] == "0.006"
    assert words[words.index("--batch-size") + 1] == "2048"


def test_flags_of_landscapes_and_sharpness():
    words = command(
        *("visualize_sharpness", "--evaluate", "x", "-se", "y", "--mode", "sin", "--alpha=-0.3:0.02:0.31"),
        "--no-visualize_train",
    )
    assert words[:2] == ("landscape", "x")
    assert words[words.index("--to") :][:9] == (
        *("--to", "y", "--mode", "sin", "--results-dir", "./TrainingResults", "--alpha=-0.3:0.02:0.31"),
        *("--splits", "test"),
    )
    found = translate("visualize_sharpness", ["--evaluate", "x", "-se", "y", "--mode", "sin"])
    assert "--alpha=0:0.05:1.01" in found.words
    assert "alpha is 0:0.05:1.01: outside [0, 1] the sine turns back" in found.notices[-1]
    with pytest.raises(ValueError, match="visualize_sharpness needs a second checkpoint. Name it: --slave-evaluate"):
        command("visualize_sharpness", "--evaluate", "x")
    words = command("visualize2_sharpness", "--evaluate", "x")
    assert words[words.index("--splits") - 1 :][:3] == ("--alpha=-1:0.1:1.01", "--splits", "train")
    assert words[words.index("--direction") :][:4] == ("--direction", "uniform", "--one-dimensional", "scale")
    words = command("measure_sharpness", "--evaluate", "x", "--epsilon", "1e-3", "-m", "100", "-t", "5", "--b", "100")
    assert words[:2] == ("sharpness", "x")
    assert words[words.index("--epsilon") :] == (
        *("--epsilon", "0.001", "--manifold", "100", "--columns", "original", "--draws", "5"),
        *("--results-dir", "./TrainingResults", "--batch-size", "100"),
    )
    found = translate("measure_sharpness", ["--evaluate", "x", "-t", "5", "-j", "3"])
    assert "--draws" not in found.words
    assert found.words[found.words.index("--readers") + 1] == "3"
    assert "--times 5: nothing is random in the full space; it is searched once." in found.notices


@pytest.mark.parametrize("program", ["visualize_sharpness", "visualize2_sharpness", "measure_sharpness"])
def test_our_commands_understand_what_is_made(program):
    given = [
        "--evaluate",
        "x",
        "-j",
        "4",
        "-b",
        "10",
        "--input_size",
        "16",
        "--save",
        "n",
        "--model_config",
        "{'depth': 8}",
    ]
    given += ["-se", "y"] if program == "visualize_sharpness" else []
    given += ["-m", "3", "-t", "2"] if program == "measure_sharpness" else []
    words = command(program, *given)
    kind = {"landscape": landscape.Arguments, "sharpness": sharpness.Arguments}[words[0]]
    made = parse(kind, words[1:], words[0], "")
    assert (made.readers, made.sampling.batch_size, made.name) == (4, 10, "n")
    assert made.replacements.given["input_size"] == 16


def test_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count, device, notice in (
        (4, "cuda:2", "--gpus 2,3: one process uses one GPU; this uses cuda:2."),
        (1, "cuda:0", "--gpus 2,3: torch finds 1 CUDA device(s); this uses cuda:0."),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        found = translate("main_gbn", ["--gpus", "2,3"])
        assert found.words[found.words.index("--device") + 1] == device
        assert found.notices == (notice,)
    assert command("main_gbn", "--type", "torch.FloatTensor")[-20:].count("cpu") == 1


def test_gpus_that_are_no_numbers(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert run(["main_gbn", "--gpus", "None"]) == 2
    assert "--gpus is 'None'; expected numbers, such as 0 or 0,1" in capsys.readouterr().err


def test_mistakes_are_told(capsys):
    assert run(["main.py"]) == 2
    assert "the program is 'main'; expected one of evaluate, main_gbn" in capsys.readouterr().err
    assert run(["main_gbn", "--type", "torch.DoubleTensor"]) == 2
    assert "type is 'torch.DoubleTensor'; expected torch[.cuda].FloatTensor or" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(["main_gbn", "--sharpnes", "1", "--sharp", "2", "--nothing"])
    assert "--nothing" in capsys.readouterr().err
    assert run(["--help"]) == 0
    assert ", ".join(PROGRAMS) in capsys.readouterr().out


def test_data_lie_where_the_original_had_them(here):
    assert "--data-dir" not in command("main_gbn")
    (here / "pytorch-gen").mkdir()
    words = command("main_gbn")
    assert words[words.index("--data-dir") + 1] == "pytorch-gen"
    assert "--download" in words
    assert "--download" not in command("main_gbn", "--dataset", "imagenet")
    (here / "imagenet").mkdir()  # a folder of that name changes nothing
    assert command("main_gbn", "--dataset", "imagenet")[:3] == ("train", "--dataset", "imagenet")
    (here / "mine").mkdir()
    assert command("main_gbn", "--dataset", "mine")[1:5] == ("--dataset", "imagefolder", "--data-dir", "mine")


def test_arguments_of_the_model_that_are_options_here():
    config = "{'depth': 20, 'num_classes': 5, 'noise': 0.1, 'input_size': 16, 'dataset': 'cifar100'}"
    words = command("main_gbn", "--model_config", config)
    for flag, value in (
        *(("--model-config", "{'depth': 20}"), ("--num-classes", "5"), ("--relu-noise", "0.1")),
        *(("--input-size", "16"), ("--dataset", "cifar10")),
    ):
        assert words[words.index(flag) + 1] == value


def test_relu_noise_is_of_training_alone():
    assert "--relu-noise" not in command("evaluate", "--evaluate", "x", "--model_config", "{'noise': 0.1}")
    assert "--relu-noise" not in command("main_gbn", "--evaluate", "x", "--model_config", "{'noise': 0.1}")


def test_a_checkpoint_names_its_model_itself(here):
    (here / "run").mkdir()
    (here / "old.pth.tar").touch()
    words = command("evaluate", "--evaluate", "run")
    assert not {"--model", "--dataset"} & set(words)
    words = command("evaluate", "--evaluate", "old.pth.tar")
    assert "--model" not in words
    assert words[words.index("--dataset") + 1] == "cifar10"


def test_other_defaults_without_a_regime_are_told():
    found = translate("main_gbn", ["-a", "mine.py:model"])
    [notice] = [text for text in found.notices if "regime" in text]
    assert notice.startswith("if the model carries no regime, lr is 0.05 and weight decay 1e-4 here; main_gbn")
    assert not any("regime" in notice for notice in translate("main_gbn", ["-a", "mine.py:model", "--lr", "1"]).notices)


# What each row is tested with in this file besides TRAINS; a row that is in neither fails.
OTHERS = {
    *("results_dir", "save", "workers", "dropout", "gpus", "save_all", "print_freq", "anneal_index", "tanh_scale"),
    *("input_size", "relu_noise", "augment", "resume", "mode", "evaluate", "slave_evaluate", "alpha"),
    *("visualize_train", "epsilon", "manifolds", "times"),
}
ANY = {int: "7", float: "0.7", str: "x"}
FITTING = {"model_config": "{'depth': 8}", "mode": "train", "type": "torch.FloatTensor", "gpus": "3", "resume": ""}
BY_ANOTHER = {"lr_bb_fix": "--lr-rule", "visualize_train": "--splits", "gpus": "--device", "type": "--device"}


def test_every_row_is_tested():
    assert TRAINS.keys() | OTHERS == ROWS.keys()
    assert not TRAINS.keys() & OTHERS


PAIRS = [(program, option) for option in OPTIONS for program in option.programs]


@pytest.mark.parametrize(("program", "option"), PAIRS, ids=lambda part: getattr(part, "name", part))
def test_every_program_passes_its_flags_on_or_says_so(program, option):
    """Under every spelling, the option of ours that the table names is there, or a notice that there is none."""
    value = [] if option.kind is bool else [FITTING.get(option.name, ANY[option.kind])]
    checkpoint = [] if option.name == "evaluate" or PROGRAMS[program] == "train" else ["--evaluate", "c"]
    if program == "visualize_sharpness" and option.name != "slave_evaluate":
        checkpoint += ["--slave-evaluate", "d"]
    if option.name == "times":
        checkpoint += ["--manifolds", "3"]
    told = []
    for flag in option.flags:
        found = translate(program, [*checkpoint, flag, *value])
        told.append(found.words)
        ours = option.ours.get(found.words[0])
        if ours is None:
            assert any(notice.startswith(f"{option.flags[0]} has no effect in {program}") for notice in found.notices)
        elif ours == "CHECKPOINT":
            assert found.words[1] == "x"
        elif option.name != "resume":  # tested on its own, with files
            assert any(word.partition("=")[0] == BY_ANOTHER.get(option.name, ours) for word in found.words)
    assert len(set(told)) == 1


def test_the_page_is_made_from_the_table():
    page = HERE.parents[2] / "docs" / "options.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run `make docs`"
