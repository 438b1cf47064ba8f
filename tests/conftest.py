import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # Small tensors: a second thread costs more than it brings, and sums keep one order.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.default_generator.manual_seed(0)


@pytest.fixture(params=["compiled", "plain torch"])
def backend(request, monkeypatch):
    """Noise by the compiled kernel, and by the reference."""
    from smoothout.kernels import choose

    if request.param == "plain torch":
        monkeypatch.setattr(choose, "numba_works", lambda *_: False)
    else:
        assert choose.numba_works("none", "uniform", False)
    return request.param


@pytest.fixture(scope="session")
def digits_runs(tmp_path_factory):
    """Short runs on the digits: plain/0, plain/1, noisy/0, noisy/1, and conv, which is of another architecture."""
    from smoothout.cli.main import main

    folder = tmp_path_factory.mktemp("digits")
    words = ["train", "--dataset", "digits", "--batch-size", "512", "--ghost-batch-size", "256", "--results-dir"]
    for seed in ("0", "1"):
        for arm, strength in (("plain", "0"), ("noisy", "0.05")):
            more = ["--name", seed, "--seed", seed, "--strength", strength, "--epochs", "2"]
            assert main([*words, str(folder / arm), *more]) == 0
    more = ["--name", "conv", "--model", "resnet", "--model-config", "{'depth': 8}", "--epochs", "1"]
    assert main([*words, str(folder), *more]) == 0
    return folder
