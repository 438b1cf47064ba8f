"""The page of what noise costs says what the benchmarks' results say."""

import importlib.util
from pathlib import Path

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
