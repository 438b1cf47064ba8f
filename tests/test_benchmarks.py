"""Pages of what noise costs say what the benchmarks' results say; the model of scaling is held to sums by hand."""

import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_results_make_of_it(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "bench.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    written = {name: getattr(bench, name).read_text() for name in ("PAGE", "README")}
    for name, text in written.items():
        monkeypatch.setattr(bench, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    summary = bench.write_pages()
    assert {name: (tmp_path / name).read_text() for name in written} == written
    assert f"{summary}." in written["PAGE"]


def test_the_reports_speed_is_what_was_measured():
    spec = importlib.util.spec_from_file_location("page", ROOT / "benchmarks" / "page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert page.FROM + page.sentence() + page.TO in page.PAGE.read_text()


def test_an_epoch_of_the_loop_whose_throughput_is_measured(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    throughput = importlib.import_module("throughput")
    throughput.write(tmp_path, samples=20)
    epoch = throughput.ours(tmp_path, model="resnet", model_config="{'depth': 8}", batch_size=20, strength=0.02)
    epoch()


@pytest.fixture
def scaling(monkeypatch):
    """The model and the page of scaling."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scaling_model"), importlib.import_module("scaling_page")


def test_the_page_of_scaling_is_what_the_results_make_of_it(scaling, tmp_path, monkeypatch):
    _, page = scaling
    written = page.PAGE.read_text()
    monkeypatch.setattr(page, "PAGE", tmp_path / "scaling.md")
    page.PAGE.write_text(written)
    page.write()
    assert page.PAGE.read_text() == written


def test_collectives_by_hand(scaling):
    model, _ = scaling
    link = model.Link(latency=1e-3, bandwidth=1e6)
    # Four processes: 6 steps of 1 ms, and 6/4 of 2 MB at 1 MB/s.
    assert link.all_reduce(4, 2e6) == pytest.approx(0.006 + 3.0)
    assert link.gather(4, 2e6) == pytest.approx(0.003 + 1.5)
    assert link.all_reduce(1, 2e6) == 0
    cluster = model.Cluster(model.Link(1e-3, 8e6), link)
    # 8 a machine: 7 ms and 7/8 of 8 MB at 8 MB/s; between two machines 1 ms and half of each one's MB at 1 MB/s.
    assert cluster.gather(16, 8e6) == pytest.approx(0.007 + 0.875 + 0.001 + 0.5)
    assert cluster.gather(16, 8e6, parts=10) == pytest.approx(0.07 + 0.875 + 0.01 + 0.5)
    assert cluster.gather(2, 8e6) == pytest.approx(0.001 + 0.5)


def test_links_are_found_again(scaling):
    model, _ = scaling
    link = model.Link(3e-5, 7e8)
    rows = [(p, size, link.all_reduce(p, size)) for p in (2, 4) for size in (4096, 2**16, 2**26)]
    found = model.fit(rows)
    assert (found.link.latency, found.link.bandwidth) == pytest.approx((link.latency, link.bandwidth), rel=1e-6)
    assert found.worst < 1e-6
    rows[0] = (*rows[0][:2], rows[0][2] * 1.2)
    off = model.fit(rows)
    assert 0.05 < off.worst < 0.2
    assert off.typical < off.worst


def test_updates_by_hand(scaling):
    model, _ = scaling
    update = model.Update(pieces=8, ghost=0.1, noise=0.01, step=0.02)
    assert update.seconds(1) == pytest.approx(8 * 0.11 + 0.02)
    assert update.seconds(3) == pytest.approx(3 * 0.11 + 0.02)
    assert update.seconds(16, communication=0.05, overlap=0.03) == pytest.approx(0.11 + 0.02 + 0.02)
    assert update.seconds(16, communication=0.05, overlap=0.06) == pytest.approx(0.11 + 0.02)
    assert update.seconds(4, communication=0.05, slower=2.0) == pytest.approx(2 * (2 * 0.11 + 0.02) + 0.05)


def test_sharded_updates_by_hand(scaling):
    model, _ = scaling
    # Four passes of 1 s, noise 0.1 s, a gather 0.5 s, a reduction 0.25 s, 0.8 s of which hide in a pass.
    seconds = {
        name: way.seconds(4, ghost=1.0, noise=0.1, gather=0.5, scatter=0.25, hidden=0.8)
        for name, way in model.WAYS.items()
    }
    assert list(seconds.values()) == pytest.approx([4.0, 4.1, 4 * 1.45, 4 * 1.1, 4 * 1.55])


def test_measured_cases_by_hand(scaling):
    model, _ = scaling
    alone = [
        {"processes": 1, "ghosts": ghosts, "plain": 0.03 + 0.1 * ghosts, "noise": 0.002 + 0.01 * ghosts}
        for ghosts in (8, 2)
    ]
    both = {"processes": 2, "ghosts": 7, "plain": 1.0, "noisy": 2.0, "noise": 0.5}
    network = {"updates": [*alone, both], "weights": 1000, "channels": 10, "side by side": {"2": 1.5}}
    links = {2: model.Link(1e-3, 1e6)}
    plain, noisy = model.predicted_here(network, links)
    sent = 0.002 + 0.004 + 0.002 + 0.00008  # gradients, then statistics
    assert (plain["measured"], noisy["measured"]) == (1.0, 2.0)
    assert plain["predicted"] == pytest.approx(1.5 * (0.03 + 4 * 0.1) + sent)
    assert noisy["predicted"] == pytest.approx(1.5 * (0.03 + 4 * 0.11 + 0.002) + sent)


def test_predictions_for_gpus_by_hand(scaling):
    model, _ = scaling
    gpu = {
        "resnet-50, eager": {"SmoothOut": {"seconds": 0.12, "median": 1.01}},
        "growth": {
            "weights": [{"weights": n, "tensors": 1, "block, seconds": 1e-3 + n * 1e-11} for n in (10, 10**9)],
            "tensors": [{"weights": 10, "tensors": 1001, "block, seconds": 1e-3 + 0.01}],
        },
    }
    step = 5 * 4 * 25_557_032 / (3.35e12 * 0.7)
    ghost = 0.06 - step / 2
    assert model.resnet50_seconds(gpu, 1, 64, noise=False) == pytest.approx(64 * ghost + step)
    statistics = 2 * (7 * 3.4e-6 + 7 / 8 * 212_480 / (450e9 * 0.7))  # gradients hide behind the last pass
    assert model.resnet50_seconds(gpu, 8, 64, noise=True) == pytest.approx(8 * (ghost + 0.0006) + step + statistics)
    weights = 6_738_415_616
    ghost = 6 * weights * 8192 / (989.4e12 * 0.4)
    noise = 1e-3 + weights / 8 * 1e-11 + 291 * 1e-5
    step = 7 * 4 * weights / 8 / (3.35e12 * 0.7)
    way = model.WAYS["a noise a ghost batch, gathered once a pass"]  # all of it hides
    assert model.transformer_seconds(gpu, 8, 8192, way) == pytest.approx(8 * (ghost + noise) + step, rel=1e-3)


def test_the_networks_that_are_predicted(scaling):
    import torch
    import torchvision

    model, _ = scaling
    with torch.device("meta"):
        network = torchvision.models.resnet50()
    channels = sum(norm.num_features for norm in network.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    assert {"weights": sum(p.numel() for p in network.parameters()), "channels": channels} == model.RESNET50
    width, hidden, words, layers = 4096, 11008, 32000, model.TRANSFORMER["layers"]
    shapes = [[width * width] * 4 + [width * hidden] * 3 + [width] * 2] * layers
    tensors = [size for layer in shapes for size in layer] + [words * width] * 2 + [width]
    assert (sum(tensors), len(tensors)) == (model.TRANSFORMER["weights"], model.TRANSFORMER["tensors"])


def test_blocks_on_shards_are_shown_once_they_are_measured(scaling):
    _, page = scaling
    assert list(page.of_shards({"sharded": {"not measured": "TypeError: a DTensor"}}, cores=2)) == [
        "Blocks on sharded weights: not measured (TypeError: a DTensor)",
        "",
    ]
    blocks = [
        {"kind": "SmoothOut", "processes": p, "seconds": 0.004 / p, "times one process": {"median": 1 / p}}
        for p in (1, 4)
    ]
    head, _, *rows, last = page.of_shards({"sharded": {"weights": 4_000_000, "blocks": blocks}}, cores=2)
    assert head.startswith("| block on 4,000,000 weights")
    assert rows == ["| SmoothOut | 1 | 4 | 1.00 |", "| SmoothOut | 4, oversubscribed | 1 | 0.25 |"]
    assert last == ""
