"""How long the report page takes to open, and how large it is.

    python benchmarks/page.py [--rounds N]

The page has four arms of five runs with 200 epochs, measures, and planes of 51 x 51 points. A round opens it in a new
Chromium, the one that ``make browser`` chose. "open" is the time until the words can be read and the first figures are
drawn; "all" until every figure is, the surface drawn by software where there is no GPU. Writes
benchmarks/results/page.json.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from steps import environment

from smoothout.report import page, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_folders import demo_like
from opened_page import FLAGS

RESULTS = Path(__file__).parent / "results" / "page.json"
FIRST = "document.querySelectorAll('.plot .cartesianlayer .scatterlayer .js-line').length > 0"
ALL = "document.documentElement.dataset.drawn === 'all'"


def main() -> None:
    """Measure and write benchmarks/results/page.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        made = report.make([demo_like(Path(folder) / "runs", epochs=200, seeds=5, size=51)], "")
        path = page.write(made, Path(folder) / "report.html")
        seconds = time.perf_counter() - began
        megabytes = path.stat().st_size / 1e6
        opened = [_open(path) for _ in range(rounds + 1)][1:]  # the first finds nothing in the disk's cache
    found = {name: statistics.median(each[name] for each in opened) for name in opened[0]}
    print(f"{megabytes:.1f} MB, made in {seconds:.1f} s; open {found['open']:.2f} s, all figures {found['all']:.2f} s")
    record = {**environment(), "megabytes": megabytes, "make_seconds": seconds, "rounds": opened, **found}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def _open(path: Path) -> dict[str, float]:
    """Seconds until the page is open, and until all of it is drawn."""
    from playwright.sync_api import sync_playwright

    chromium = (Path(__file__).parents[1] / ".venv" / "chromium").read_text().strip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page()
        began = time.perf_counter()
        tab.goto(path.as_uri(), wait_until="commit")
        tab.wait_for_function(FIRST)
        first = time.perf_counter() - began
        tab.wait_for_function(ALL)
        drawn = time.perf_counter() - began
        browser.close()
    return {"open": first, "all": drawn}


if __name__ == "__main__":
    main()
