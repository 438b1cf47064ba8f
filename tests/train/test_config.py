from pathlib import Path

import pytest

from smoothout.train.config import Settings
from smoothout.train.plan import make_plan


def test_json_and_back():
    settings = Settings().replace(milestones=(3, 5), data_dir=Path("x/y"), holdout=0.25, strength=0.1)
    back = Settings.from_json(settings.to_json())
    assert back == settings
    assert isinstance(back.data.data_dir, Path)


def test_every_setting_has_its_own_name():
    names = [name for group in vars(Settings()).values() for name in vars(group)]
    assert len(names) == len(set(names)) == len(Settings().flat())


def test_optional_paths_come_back():
    settings = Settings().replace(weights=Path("old/model_best.pth.tar"), model_config="{'depth': 20}")
    back = Settings.from_json(settings.to_json())
    assert back == settings
    assert back.network.arguments == {"depth": 20}
    assert back.data.data_dir is None


def test_data_folder(monkeypatch):
    monkeypatch.delenv("SMOOTHOUT_DATA", raising=False)
    assert Settings().data.folder == Path("data")
    monkeypatch.setenv("SMOOTHOUT_DATA", "/somewhere")
    assert Settings().data.folder == Path("/somewhere")
    assert Settings().replace(data_dir=Path("here")).data.folder == Path("here")


def test_other_schemas_and_settings_are_refused():
    text = Settings().to_json()
    with pytest.raises(ValueError, match="schema 0; this version reads 2"):
        Settings.from_json(text.replace('"schema": 2', '"schema": 0'))
    with pytest.raises(ValueError, match="the setting is 'lear'; expected one of accumulation"):
        Settings.from_json(text.replace('"lr"', '"lear"'))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"holdout": 1.5}, "holdout is 1.5; expected a share from 0 up to 1"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number >= 1"),
        ({"milestones": (5, 3)}, r"milestones are \(5, 3\); expected epochs in rising order"),
        ({"lr": -1.0}, "lr is -1.0; expected a finite number >= 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"epochs": 0}, "epochs is 0"),
        ({"noise_per": "update"}, "noise_per is 'update'; expected one of 'ghost_batch', 'batch'"),
        ({"compile": "fast"}, "compile is 'fast'; expected one of 'default', 'reduce-overhead', 'max-autotune'"),
        ({"device": "gpu"}, "device is 'gpu'; expected auto, cpu, cuda or cuda:INDEX"),
        ({"model_config": "depth=20"}, r"model_config is 'depth=20'; expected a dict of names and values"),
        ({"model_config": "[1]"}, "model_config is .*expected a dict"),
        ({"milestones": (3,), "lr_schedule": "cosine"}, "lr_schedule is 'cosine' and milestones are given"),
        ({"lr_decay": 0.5, "lr_schedule": "cosine"}, "lr_schedule is 'cosine' and lr_decay is given"),
        ({"regime_multiplier": 0}, "regime_multiplier is 0"),
        ({"method": "sam", "rho": -0.1}, "rho is -0.1; expected a finite number > 0"),
        ({"method": "ema", "average_decay": float("nan")}, "average_decay is nan; expected a number from 0 up to 1"),
        ({"method": "swa", "average_start": 1.5}, "average_start is 1.5; expected a number from 0 up to 1"),
        ({"strength": "auto", "auto_target": -1.0}, "target is -1.0"),
        ({"strength": "auto", "denoise": False}, 'strength is "auto" and denoise off.*Leave --no-denoise out'),
    ],
)
def test_impossible_settings(changes, text):
    with pytest.raises(ValueError, match=text):
        Settings().replace(**changes)


def plan(samples=1000, **changes):
    return make_plan(Settings().replace(batch_size=300, ghost_batch_size=100, epochs=8, lr=0.1, **changes), samples)


def test_sizes_of_a_plan():
    assert plan().batches == (300, 300, 300, 100)
    assert plan(901).batches == (300, 300, 301)
    assert plan(accumulation=3).updates_per_epoch == 2
    assert plan(accumulation=3).total_updates == 16


def test_the_rate_follows_rule_base_warmup_and_milestones():
    assert plan().lr(0) == pytest.approx(0.1 * 3**0.5)
    assert plan(lr_rule="linear", base_batch=150, accumulation=2).lr(0) == pytest.approx(0.4)
    assert plan(accumulation=100).lr(0) == pytest.approx(0.1 * 10**0.5)  # no update has more than all samples
    assert plan(lr_rule="none").lr(0) == pytest.approx(0.1)
    milestones = plan(lr_rule="none")  # at half and three quarters of 8 epochs of 4 updates
    assert [milestones.lr(update) for update in (15, 16, 23, 24)] == pytest.approx([0.1, 0.01, 0.01, 0.001])
    own = plan(lr_rule="none", milestones=(1, 2), lr_decay=0.5)
    assert [own.lr(update) for update in (3, 4, 8)] == pytest.approx([0.1, 0.05, 0.025])
    warm = plan(lr_rule="none", warmup_steps=4)
    assert [warm.lr(update) for update in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    cosine = plan(lr_rule="none", lr_schedule="cosine")
    assert [cosine.lr(update) for update in (0, 16, 31)] == pytest.approx([0.1, 0.05, 0.1 * (1 - 0.997592)], rel=1e-2)
    assert plan(lr_rule="none", lr_schedule="constant").lr(31) == pytest.approx(0.1)


def test_regime_adaptation_lengthens_the_run():
    adapted = plan(regime_adaptation=True, regime_multiplier=2, milestones=(4,), accumulation=2, lr_rule="none")
    assert adapted.stretch == 12  # ceil(2 x 300 / 100) x 2
    assert adapted.epochs == 96
    assert adapted.total_updates == 96 * 2
    assert [adapted.lr(update) for update in (4 * 12 * 2 - 1, 4 * 12 * 2)] == pytest.approx([0.1, 0.01])
    assert plan(regime_adaptation=True, base_batch=250).epochs == 16
    with pytest.raises(ValueError, match="start_epoch is 8 of 8 epochs; expected it below them"):
        plan(start_epoch=8)
