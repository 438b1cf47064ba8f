"""What was measured of checkpoints is read back without torch, and tells whether they have changed since."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest

from smoothout.cli.main import main
from smoothout.results.checkpoints import weights_digest
from smoothout.results.landscape import Line, read_landscape
from smoothout.results.sharpness import BallSharpness, read_sharpness


@pytest.fixture(scope="module")
def measured(digits_runs, tmp_path_factory):
    """A folder with sharpness/, landscape/ and run/, of which both are."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(digits_runs / "plain" / "0", folder / "run")
    few = ["--samples", "64", "--device", "cpu", "--results-dir", str(folder)]
    radii = [["--radius", "0.05"], ["--radius", "0.1"]]
    for more in radii:
        assert main(["sharpness", str(folder / "run"), "--measures", "ball", *more, "--name", "sharpness", *few]) == 0
    assert main(["landscape", str(folder / "run"), "--alpha=-1:1:1.5", "--name", "landscape", *few]) == 0
    return folder


def test_sharpness_comes_back(measured):
    found = read_sharpness(measured / "sharpness" / "sharpness.json")
    assert [each.options["radius"] for each in found] == [0.05, 0.1]
    for each in found:
        assert isinstance(each.record, BallSharpness)
        assert (each.checkpoint, each.split, each.samples, each.measure) == (measured / "run", "train", 64, "ball")
        assert each.call == f"ball {json.dumps(each.options)}"
        assert each.weights == weights_digest(measured / "run")


def test_of_equal_rows_the_last_counts(measured, tmp_path):
    content = json.loads((measured / "sharpness" / "sharpness.json").read_text())
    row = content["measures"][0]
    del row["weights"]  # as before they were kept
    content["measures"].append(row | {"key": "another", "samples": None})
    path = tmp_path / "sharpness.json"
    path.write_text(json.dumps(content))
    found = read_sharpness(path)
    assert [(each.weights is None, each.samples) for each in found] == [(True, None), (False, 64)]


def test_a_landscape_comes_back(measured):
    found = read_landscape(measured / "landscape")
    assert found.checkpoints == (measured / "run",)
    assert found.weights == (weights_digest(measured / "run"),)
    assert found.command.startswith("smoothout landscape ")
    assert found.records.keys() == {"train", "test"}
    assert all(isinstance(record, Line) and record.alphas == (-1.0, 0.0, 1.0) for record in found.records.values())


def test_files_of_others_are_refused(measured, tmp_path):
    for text in ("", "[]", "{}", '{"measures": [{"checkpoint": "a"}]}', '{"measures": 3}'):
        (tmp_path / "sharpness.json").write_text(text)
        with pytest.raises(ValueError, match=r"sharpness.json cannot be read .*what smoothout sharpness wrote"):
            read_sharpness(tmp_path / "sharpness.json")
        (tmp_path / "landscape.json").write_text(text)
        with pytest.raises(ValueError, match=r"landscape.json cannot be read .*what smoothout landscape wrote"):
            read_landscape(tmp_path)
    shutil.copytree(measured / "landscape", tmp_path / "part")
    (tmp_path / "part" / "line-test.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="landscape.json cannot be read .* line-test"):
        read_landscape(tmp_path / "part")
    (tmp_path / "part" / "line-test.npz").unlink()
    with pytest.raises(ValueError, match="landscape.json cannot be read .*No such file"):
        read_landscape(tmp_path / "part")
    with pytest.raises(FileNotFoundError):
        read_landscape(tmp_path / "nothing")


def test_the_digest_is_of_the_file_with_the_weights(measured, tmp_path):
    best = measured / "run" / "checkpoints" / "best"
    digest = hashlib.sha256((best / "model.safetensors").read_bytes()).hexdigest()
    assert weights_digest(best) == weights_digest(measured / "run") == digest
    assert weights_digest(best / "model.safetensors") == digest
    assert weights_digest(tmp_path) is None
    shutil.copytree(best, tmp_path / "checkpoints" / "best.old")  # a save that was cut off
    assert weights_digest(tmp_path) == digest
    (tmp_path / "checkpoints" / "best.old" / "model.safetensors").unlink()
    assert weights_digest(tmp_path) is None


def test_no_torch_is_needed():
    names = "checkpoints compared comparisons files landscape processes runs scan sharpness"
    script = (
        f"import sys, {', '.join(f'smoothout.results.{name}' for name in names.split())}; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
