from pathlib import Path

import pytest
import torch
from torch import nn

from smoothout.train import checkpoint
from smoothout.train.config import Settings
from smoothout.train.run_folder import RunFolder


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3, bias=False)
        self.two = nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight
        self.conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm1d(3)


def test_weights_state_and_settings_come_back(tmp_path):
    model, other = Tied(), Tied()
    settings = Settings().replace(strength=0.5)
    checkpoint.save(tmp_path / "c", model, settings, {"epoch": 3, "momentum": torch.ones(2)})
    checkpoint.load_weights(tmp_path / "c", other)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert other.one.weight is other.two.weight
    assert checkpoint.load_state(tmp_path / "c")["epoch"] == 3
    assert checkpoint.load_settings(tmp_path / "c") == settings


def test_another_model_is_refused_and_left_alone(tmp_path):
    checkpoint.save(tmp_path / "c", nn.Linear(3, 2), Settings(), {})
    other = nn.Linear(4, 2)
    before = other.weight.detach().clone()
    with pytest.raises(ValueError, match=r"of another size: weight \(2, 3\), here \(2, 4\). Name the data"):
        checkpoint.load_weights(tmp_path / "c", other)
    assert torch.equal(other.weight, before)
    with pytest.raises(ValueError, match="missing 0.bias, 0.weight, unknown bias, weight. Name"):
        checkpoint.load_weights(tmp_path / "c", nn.Sequential(other))


STEPS = ["save_file", "torch.save", "rename part", "rename old", "rename new"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_point_leaves_a_whole_checkpoint(tmp_path, monkeypatch, step, first):
    folder = tmp_path / "last"
    if not first:
        checkpoint.save(folder, nn.Linear(2, 2), Settings(), {"epoch": 1})

    def torn(_value, path):
        Path(path).write_bytes(b"torn")
        raise KeyboardInterrupt

    original = type(folder).rename

    def rename(self, target):
        if step.startswith("rename") and step.split()[1] in (self.suffix[1:], Path(target).suffix[1:]):
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "rename", rename)
        if step == "save_file":
            patch.setattr(checkpoint, "save_file", torn)
        elif step == "torch.save":
            patch.setattr(torch, "save", torn)
        if step == "rename old" and first:  # there is nothing to move aside
            checkpoint.save(folder, nn.Linear(2, 2), Settings(), {"epoch": 2})
        else:
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save(folder, nn.Linear(2, 2), Settings(), {"epoch": 2})
    written = step in ("rename old", "rename new")
    if first and not written:
        with pytest.raises(FileNotFoundError):
            checkpoint.find(folder)
    else:
        # The old one as long as it stands; else the new one.
        assert checkpoint.load_state(checkpoint.find(folder))["epoch"] == (2 if step == "rename new" or first else 1)
    checkpoint.save(folder, nn.Linear(2, 2), Settings(), {"epoch": 3})
    assert checkpoint.load_state(checkpoint.find(folder))["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_reader_moves_nothing(tmp_path):
    checkpoint.save(tmp_path / "last.new", nn.Linear(2, 2), Settings(), {"epoch": 2})
    assert checkpoint.find(tmp_path / "last") == tmp_path / "last.new"
    assert (tmp_path / "last.new").is_dir()


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no checkpoint; expected a folder with model.safetensors"):
        checkpoint.find(tmp_path)


def test_code_named_by_a_stored_config_is_not_run(tmp_path):
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('ran')")
    settings = Settings().replace(model=f"{trap}:model")
    checkpoint.save(tmp_path / "c", nn.Linear(2, 2), settings, {})
    with pytest.raises(PermissionError, match=r"never run. Read it, then name it again: --model .*trap.py:model"):
        checkpoint.load_settings(tmp_path / "c")
    assert checkpoint.load_settings(tmp_path / "c", model="mlp").network.model == "mlp"


def test_a_state_that_would_run_code_does_not_load(tmp_path):
    checkpoint.save(tmp_path / "c", nn.Linear(2, 2), Settings(), {})
    torch.save({"f": print}, tmp_path / "c" / "state.pt")
    with pytest.raises(Exception, match="(?i)weights.only"):
        checkpoint.load_state(tmp_path / "c")


def test_run_folders_are_not_overwritten_by_accident(tmp_path):
    path = tmp_path / "run"
    RunFolder.create(path, Settings())
    with pytest.raises(FileExistsError, match="exists. Use --resume, --overwrite, or another --name"):
        RunFolder.create(path, Settings())
    RunFolder.create(path, Settings(), overwrite=True)
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").touch()
    (foreign / "config.json").write_text('{"architectures": ["Bert"]}')
    with pytest.raises(FileExistsError, match="was not made by smoothout; it is not overwritten"):
        RunFolder.create(foreign, Settings(), overwrite=True)
    assert (foreign / "cat.jpg").exists()
    with pytest.raises(FileNotFoundError, match="holds no run; expected a folder with config.json that is no"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("model", ["timm:resnet10t", "torchvision:resnet18"])
def test_a_stored_config_fetches_no_weights(model, tmp_path):
    argument = "{'pretrained': True}" if model.startswith("timm") else "{'weights': 'DEFAULT'}"
    settings = Settings().replace(model=model, model_config=argument)
    checkpoint.save(tmp_path / "c", nn.Linear(3, 2), settings, {})
    with pytest.raises(PermissionError, match="it fetches weights. Read it, then name it again: --model-config "):
        checkpoint.load_settings(tmp_path / "c")
    assert checkpoint.load_settings(tmp_path / "c", model_config=argument) == settings
    harmless = checkpoint.load_settings(tmp_path / "c", model_config="{}")
    assert harmless.network.arguments == {}
