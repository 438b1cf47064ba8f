"""A report of real runs, with measures by the commands."""

import json
import re

from smoothout.cli.main import main


def test_real_runs_measures_and_planes_make_a_page(digits_runs, tmp_path, capsys):
    runs = [str(digits_runs / arm / seed) for arm in ("plain", "noisy") for seed in ("0", "1")]
    where = ["--results-dir", str(tmp_path), "--samples", "200"]
    noise = ["--measures", "noise,hessian", "--scale", "none", "--strengths", "0.01", "0.05", "--draws", "2"]
    assert main(["sharpness", *runs, *noise, *where, "--name", "sharpness"]) == 0
    for run in (runs[0], runs[2]):
        name = ["--name", f"plane-{len(run)}-{'noisy' in run}"]
        assert main(["landscape", run, "--plane", "3x3", "--splits", "test", *where, *name]) == 0
    assert main(["landscape", runs[0], "--to", runs[2], "--alpha=0:0.5:1.01", *where, "--name", "line"]) == 0
    folders = [str(path) for path in sorted(tmp_path.iterdir()) if path.is_dir()]
    output = tmp_path / "report.html"
    assert main(["report", *runs, *folders, "--against", "plain", "-o", str(output)]) == 0
    assert f"written: {output}" in capsys.readouterr().out
    data = json.loads(re.search(r'id="smoothout-data">(.*?)</script>', output.read_text(), re.S)[1])
    [group] = data["groups"]
    assert group["title"] == "mlp on digits"
    assert [(arm["name"], arm["against"]) for arm in group["arms"]] == [("plain", None), ("noisy", "plain")]
    assert group["arms"][1]["settings"] == {"strength": "0.05"}
    results = [json.loads((digits_runs / "noisy" / seed / "result.json").read_text()) for seed in ("0", "1")]
    mean = sum(result["test_accuracy_last"] for result in results) / 2
    assert abs(group["arms"][1]["test"]["mean"] - mean) < 1e-3
    assert [run["state"] for arm in group["arms"] for run in arm["runs"]] == ["finished"] * 4
    names = [measure["name"] for measure in group["measures"]]
    assert names[:2] == ["noise a = 0.01, none: rise (nats)", "noise a = 0.05, none: rise (nats)"]
    assert all(value["seeds"] == [0, 1] for measure in group["measures"] for value in measure["values"])
    assert [plane["title"] for plane in group["planes"]] == ["plain, seed 0", "noisy, seed 0"]
    assert {line["title"] for line in group["lines"]} == {"plain, seed 0 to noisy, seed 0"}
    assert group["origins"][0]["command"].startswith("smoothout train --dataset digits")
    assert data["left_out"] == []
