"""The picture of the demo's page in README: docs/images/report.png.

    make demo && make browser && python experiments/demo/picture.py

Look at it before it is committed.
"""

from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # a surface without a GPU
WIDTH = 1180


def main() -> None:
    """Open the page, wait until all is drawn, and take its summary, its curves, and its planes and surface."""
    out = ROOT / "docs" / "images"
    out.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = (ROOT / ".venv" / "chromium").read_text(encoding="utf-8").strip()
        page = playwright.chromium.launch(executable_path=chromium, args=FLAGS).new_page(
            viewport={"width": WIDTH, "height": 900}
        )
        page.goto((ROOT / "runs" / "demo" / "report.html").as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn === 'all'")
        page.add_style_tag(content=".legend { position: static !important; }")
        page.wait_for_timeout(1000)  # the surface's last frame
        page.screenshot(path=out / "report.png", full_page=True)


if __name__ == "__main__":
    main()
