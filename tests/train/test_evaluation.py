import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from references import perturbed

from smoothout.train import checkpoint
from smoothout.train.config import Settings
from smoothout.train.data.splits import in_order
from smoothout.train.evaluation import Conditions, evaluate
from smoothout.train.loop import train
from smoothout.train.run import prepare
from smoothout.train.run_folder import RunFolder

USER = Path(__file__).with_name("user_code.py")
NAMES = {"dataset": f"{USER}:blobs", "model": f"{USER}:net"}


class Watcher:
    def started(self, lines, updates): ...

    def updated(self, seen): ...

    def finished_epoch(self, row, best): ...


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    settings = Settings().replace(batch_size=64, ghost_batch_size=24, epochs=3, **NAMES)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", settings)
    return folder, train(prepare(settings), folder, Watcher())


def test_a_run_means_its_best_checkpoint(trained):
    folder, result = trained
    [best] = evaluate(folder.path, ["test"], Conditions(), **NAMES)
    assert best.checkpoint == folder.checkpoint("best")
    assert best.risk.error1 == pytest.approx(100 - result.test_accuracy_best)
    [last] = evaluate(folder.checkpoint("last"), ["train"], Conditions(), **NAMES)
    assert last.risk.loss == pytest.approx(result.train_loss_last)
    assert last.draws == 1
    assert math.isnan(last.loss_se)


def test_noise_is_the_training_noise_with_a_standard_error(trained):
    folder, _ = trained
    [found] = evaluate(folder.path, ["test"], Conditions(strength=0.3, draws=8, seed=5), **NAMES)
    losses = []
    for draw in range(8):
        run = prepare(folder.settings)
        checkpoint.load_weights(folder.checkpoint("best"), run.network)
        with torch.no_grad():
            for ordinal, (name, parameter) in enumerate(run.network.named_parameters()):
                if not name.startswith("1."):  # BatchNorm
                    parameter.copy_(perturbed(parameter, ordinal, 0.3, "none", "uniform", (5, 0, 0, draw)))
        [(x, y)] = in_order(run.dataset.test)
        losses.append(torch.nn.functional.cross_entropy(run.network.eval()(x), y).item())
    losses = torch.tensor(losses, dtype=torch.float64)
    assert found.risk.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert found.loss_se == pytest.approx(float(losses.std()) / 8**0.5, rel=1e-4)
    assert found.relative_noise > 0


def test_code_must_be_named_again(trained):
    with pytest.raises(PermissionError, match="--model .*user_code.py:net"):
        evaluate(trained[0].path, ["test"], Conditions(), dataset=NAMES["dataset"])


def test_half_precision_is_evaluated_as_it_was_trained(tmp_path):
    settings = Settings().replace(batch_size=64, ghost_batch_size=24, epochs=1, precision="bf16", **NAMES)
    folder = RunFolder.create(tmp_path / "run", settings)
    result = train(prepare(settings), folder, Watcher())
    [found] = evaluate(folder.checkpoint("last"), ["test"], Conditions(), **NAMES)
    assert found.risk.loss == pytest.approx(result.test_loss_last, rel=1e-9)


def test_augmentation_is_drawn_anew_for_each_draw(tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            for index in range(12):
                pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8).numpy()
                pixels[:, 0] = number
                Image.fromarray(pixels).save(tmp_path / "tree" / split / name / f"{index}.png")
    changes = {"dataset": "imagefolder", "data_dir": tmp_path / "tree", "batch_size": 16, "epochs": 1}
    settings = Settings().replace(**changes)
    folder = RunFolder.create(tmp_path / "run", settings)
    train(prepare(settings), folder, Watcher())
    [plain] = evaluate(folder.path, ["test"], Conditions())
    [augmented] = evaluate(folder.path, ["test"], Conditions(augment=True, draws=4))
    [again] = evaluate(folder.path, ["test"], Conditions(augment=True, draws=4))
    assert augmented == again
    assert augmented.loss_se > 0
    assert augmented.risk.loss != plain.risk.loss


def test_impossible_draws():
    with pytest.raises(ValueError, match="draws is 0; expected a whole number >= 1"):
        Conditions(draws=0)
