"""How long the report page takes to open, and how large it is.

    python benchmarks/page.py [--rounds N]

The page has four arms of five runs with 200 epochs, measures, and planes of 51 x 51 points. A round opens it in a new
Chromium, the one that ``make browser`` chose, which draws by software. "open" is the time until words and tables are on
the screen, "figures" until the first curve is drawn, "all" until every figure is, the surface last. Writes
benchmarks/results/page.json and a sentence into docs/report.md; with --page the sentence alone.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from smoothout.report import page, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_folders import demo_like
from opened_page import FLAGS

SECONDS, MEGABYTES = 2.0, 12.0  # the goal
PAGE = Path(__file__).parents[1] / "docs" / "report.md"
FROM, TO = "<!-- written by benchmarks/page.py -->\n", "<!-- up to here -->\n"
RESULTS = Path(__file__).parent / "results" / "page.json"
FIRST = "document.querySelectorAll('.plot .cartesianlayer .scatterlayer .js-line').length > 0"
ALL = "document.documentElement.dataset.drawn === 'all'"


def main() -> None:
    """Measure, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--page", action="store_true")
    chosen = parser.parse_args()
    if not chosen.page:
        _measure(chosen.rounds)
    head, _, rest = PAGE.read_text().partition(FROM)
    PAGE.write_text(head + FROM + sentence() + rest[rest.index(TO) :])


def sentence() -> str:
    """What the results say, for docs/report.md."""
    found = json.loads(RESULTS.read_text())
    goal = "met" if found["open"] < SECONDS and found["megabytes"] < MEGABYTES else "missed"
    return (
        f"The page of 4 arms, 20 runs of 200 epochs and planes of 51 x 51 points has {found['megabytes']:.1f} MB. On "
        f"{found['cores']} cores without a GPU its words and tables are on the screen after {found['open']:.1f} s "
        f"(goal: {SECONDS:g} s and {MEGABYTES:g} MB, {goal}), its first curve after {found['figures']:.1f} s, most of "
        f"which plotly's script takes to start, and its surface, drawn by software, after {found['all']:.1f} s.\n"
    )


def _measure(rounds: int) -> None:
    from steps import environment

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        made = report.make([demo_like(Path(folder) / "runs", epochs=200, seeds=5, size=51)], "")
        path = page.write(made, Path(folder) / "report.html")
        seconds = time.perf_counter() - began
        megabytes = path.stat().st_size / 1e6
        opened = [_open(path) for _ in range(rounds + 1)][1:]  # the first finds nothing in the disk's cache
    found = {name: statistics.median(each[name] for each in opened) for name in opened[0]}
    print(f"{megabytes:.1f} MB, made in {seconds:.1f} s; " + ", ".join(f"{n} {v:.2f} s" for n, v in found.items()))
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
        painted = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        browser.close()
    return {"open": painted, "figures": first, "all": drawn}


if __name__ == "__main__":
    main()
