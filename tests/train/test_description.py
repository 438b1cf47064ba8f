"""What the start of a run prints about where its settings came from."""

from smoothout.train.config import Settings
from smoothout.train.description import _optimizer
from smoothout.train.plan import make_plan

OWN = "the model's regime"
SEED_README = {
    0: {"optimizer": "SGD", "lr": 1e-2, "weight_decay": 5e-4, "momentum": 0.9},
    15: {"lr": 1e-3, "weight_decay": 0},
}
TWO = {0: {"optimizer": "SGD", "lr": 0.1}, 3: {"optimizer": "Adam", "lr": 1e-3}}


def told(regime, **options):
    """At a rule that doubles the rate."""
    settings = Settings().replace(batch_size=400, ghost_batch_size=100, epochs=20, **options)
    return _optimizer(make_plan(settings, 400, regime))


RULE = "by rule 'sqrt' from base batch 100"


def test_options_and_regime():
    assert told(SEED_README, weight_decay=0.25) == [
        f"optimizer: SGD ({OWN}), momentum 0.9 ({OWN}), weight_decay 0.25 (--weight-decay)",
        f"learning rate: 0.02 = 0.01 ({OWN}) {RULE}",
        f"then: from epoch 16 lr 0.002 ({OWN})",
    ]


def test_a_given_rate_along_the_regime():
    assert told(SEED_README, lr=0.05)[1:] == [
        f"learning rate: 0.1 = 0.05 (--lr) {RULE}",
        f"then: from epoch 16 lr 0.01 (--lr, along {OWN}), weight_decay 0 ({OWN})",
    ]


def test_a_course_of_its_own():
    assert told(SEED_README, lr=1.0, lr_schedule="cosine", warmup_steps=5)[1:] == [
        f"learning rate: 2 = 1 (--lr) {RULE}, warm-up over 5 updates (--warmup-steps), cosine (--lr-schedule)",
        f"then: from epoch 16 weight_decay 0 ({OWN})",
    ]
    assert told(SEED_README, milestones=(5,))[2] == (
        f"then: from epoch 6 lr 0.002 (--milestones); from epoch 16 weight_decay 0 ({OWN})"
    )


def test_another_optimizer_shows_all_that_it_takes():
    assert told(TWO, weight_decay=0.25) == [
        f"optimizer: SGD ({OWN}), momentum 0 (SGD's own), weight_decay 0.25 (--weight-decay)",
        f"learning rate: 0.2 = 0.1 ({OWN}) {RULE}",
        f"then: from epoch 4 Adam ({OWN}), lr 0.002 ({OWN}), weight_decay 0.25 (--weight-decay)",
    ]


def test_defaults():
    assert told(None) == [
        "optimizer: SGD (default), momentum 0.9 (default), weight_decay 0.0001 (default)",
        f"learning rate: 0.1 = 0.05 (default) {RULE}",
        "then: from epoch 11 lr 0.01 (default); from epoch 16 lr 0.001 (default)",
    ]


def test_what_is_past_at_the_start_epoch_is_in_force():
    assert told(SEED_README, start_epoch=15)[1:] == [f"learning rate: 0.002 = 0.001 ({OWN}) {RULE}"]
    assert told(SEED_README, start_epoch=14)[2] == f"then: from epoch 16 lr 0.002 ({OWN}), weight_decay 0 ({OWN})"
    assert "then" not in told(SEED_README, start_epoch=15)[-1]


def test_a_long_list_is_cut():
    line = told(lambda epoch: {"lr": 1.0 + epoch})[2]
    assert line.count("from epoch") == 8
    assert line.endswith("; ...")
