"""The picture of the demo's page in README: docs/images/report.png.

    make demo && make browser && python experiments/demo/picture.py

Look at it before it is committed.
"""

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # a surface without a GPU
WIDTH, GAP = 1180, 16


def main() -> None:
    """Open the page, wait until all is drawn, and put its summary and table beside its figures."""
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
        left = [_taken(page, ".summary"), _taken(page, "[data-table='arms']")]
        right = [_taken(page, f"[data-figures='{name}']") for name in ("curves", "noise", "planes", "surface")]
        right.insert(0, _taken(page, "[data-legend]"))
    columns = [_stacked(left), _stacked(right)]
    _side_by_side(columns).save(out / "report.png", optimize=True)


def _taken(page: Page, selector: str) -> Image.Image:
    return Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB")


def _stacked(parts: list[Image.Image]) -> Image.Image:
    """One above the other, on white."""
    found = Image.new("RGB", (WIDTH, sum(part.height + GAP for part in parts)), "white")
    top = 0
    for part in parts:
        found.paste(part, (0, top))
        top += part.height + GAP
    return found


def _side_by_side(columns: list[Image.Image]) -> Image.Image:
    """Columns beside each other, at half their size."""
    found = Image.new("RGB", (len(columns) * (WIDTH + GAP), max(each.height for each in columns)), "white")
    for index, column in enumerate(columns):
        found.paste(column, (index * (WIDTH + GAP), 0))
    return found.resize((found.width * 2 // 3, found.height * 2 // 3), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
