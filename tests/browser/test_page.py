"""The report page in a real browser."""

import csv
import itertools
import json
import math
import re
import time

import pytest
from made_folders import demo_like, make_comparison, make_run
from opened_page import open_in

from smoothout.report import page, report

READY = "document.documentElement.dataset.drawn === 'all'"
EVIL = '<script>window.evil = 1</script><img src=x onerror="window.evil = 1">'


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return page.write(report.make([demo_like(folder / "demo")], "smoothout report runs/demo"), folder / "report.html")


@pytest.fixture(scope="module")
def kept():
    """The page that tests share, since drawing a surface without a GPU takes seconds: they leave it as it was."""
    return []


@pytest.fixture
def opened(browser, demo, kept):
    if not kept:
        kept.append(open_in(browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True), demo))
    kept[0].page.wait_for_function(READY)
    return kept[0]


def curves(opened, figure="test_error1-0"):
    """Names of the lines that a figure shows now."""
    script = (
        "name => document.querySelector(`[data-figure='${name}'] .plot`).data.map(each => each.name).filter(Boolean)"
    )
    return opened.page.evaluate(script, figure)


def axis(opened, figure):
    return opened.page.evaluate(
        "name => document.querySelector(`[data-figure='${name}'] .plot`).layout.yaxis.type", figure
    )


def test_all_figures_are_drawn_without_an_error_or_a_request(opened):
    shown = opened.page.locator("figure")
    names = [shown.nth(index).get_attribute("data-figure") for index in range(shown.count())]
    assert len(names) == len(set(names)) == 8 + 1 + 4 + 4 + 1 + 1  # curves, noise, measures, planes, surface, line
    for name in names:
        layer = ".gl-container canvas" if name.startswith("surface") else ".plot .cartesianlayer"
        assert opened.drawn(f"[data-figure='{name}'] {layer}"), name
    assert opened.errors == []
    assert opened.requests == []


def test_a_click_in_the_legend_takes_an_arm_out_of_every_figure_and_puts_it_back(opened):
    figures = (
        "train_loss-0",
        "test_error1-0",
        "distance-0",
        "noise-uniform-scale-none-train-samples-0",
        "hessian-largest-eigenvalue-0",
    )
    before = {name: curves(opened, name) for name in figures}
    button = opened.page.get_by_role("button", name="SmoothOut", exact=True)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    for name in figures:
        assert sorted(curves(opened, name)) == sorted(set(before[name]) - {"SmoothOut"})
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert {name: curves(opened, name) for name in figures} == before


def test_switches_change_axes_and_curves(opened):
    values = "document.querySelector(\"[data-figure='train_loss-0'] .plot\").data.at(-1).y"
    plain = opened.page.evaluate(values)
    opened.page.get_by_label("logarithmic axes").check()
    assert (axis(opened, "train_loss-0"), axis(opened, "test_error1-0")) == ("log", "linear")
    opened.page.get_by_label("smoothed over epochs").check()
    expected, total, weight = [], 0.0, 0.0
    for value in plain:
        total, weight = 0.8 * total + 0.2 * value, 0.8 * weight + 0.2
        expected.append(total / weight)
    assert opened.page.evaluate(values) == pytest.approx(expected)
    opened.page.get_by_label("smoothed over epochs").uncheck()
    assert opened.page.evaluate(values) == plain
    opened.page.get_by_label("logarithmic axes").uncheck()
    assert axis(opened, "train_loss-0") == "linear"


def test_the_curve_is_the_mean_over_seeds_and_the_band_their_range(opened):
    block = json.loads(opened.page.locator("#smoothout-data").text_content())
    arm = block["groups"][0]["arms"][1]
    runs = [[100 - error for error in run["columns"]["test_error1"]] for run in arm["runs"]]
    data = opened.page.evaluate("document.querySelector(\"[data-figure='test_error1-0'] .plot\").data")
    index = next(i for i, each in enumerate(data) if each.get("name") == arm["name"])
    low, high, mean = (data[index - 2 + i]["y"] for i in range(3))
    assert mean == pytest.approx([sum(values) / 3 for values in zip(*runs, strict=True)])
    assert low == pytest.approx([min(values) for values in zip(*runs, strict=True)])
    assert high == pytest.approx([max(values) for values in zip(*runs, strict=True)])


def test_hovering_over_one_curve_shows_the_epoch_in_the_others(opened):
    box = opened.page.locator("[data-figure='train_loss-0'] .nsewdrag")
    box.scroll_into_view_if_needed()
    box.hover()
    for name in ("train_loss-0", "test_loss-0", "test_error1-0"):
        opened.page.wait_for_selector(f"[data-figure='{name}'] .hoverlayer .legend", state="attached")


def test_planes_share_one_colour_scale_and_the_surface_turns_by_keyboard(opened):
    planes = opened.page.evaluate(
        "[...document.querySelectorAll(\"[data-figure^='plane'] .plot\")].map(each => [each.data[0].zmin, each.data[0].zmax])"
    )
    assert len(planes) == 4
    assert len(set(map(tuple, planes))) == 1
    camera = "document.querySelector(\"[data-figure^='surface'] .plot\").layout.scene.camera.eye"
    before = opened.page.evaluate(camera)
    opened.page.get_by_role("button", name="Turn the surface: left").press("Enter")
    opened.page.wait_for_function(f"JSON.stringify({camera}) !== JSON.stringify({json.dumps(before)})")
    heights = "document.querySelector(\"[data-figure^='surface'] .plot\").data[0].z[0].slice(1)"
    first = opened.page.evaluate(heights)
    opened.page.get_by_label("Plane that the surface shows").select_option(index=3)
    assert opened.page.evaluate(heights) != first
    assert opened.errors == []


def test_downloads_hold_the_numbers(opened, tmp_path):
    def download(button):
        with opened.page.expect_download() as caught:
            button.click()
        caught.value.save_as(tmp_path / caught.value.suggested_filename)
        return tmp_path / caught.value.suggested_filename

    figure = opened.page.locator("[data-figure='test_error1-0']")
    rows = list(csv.DictReader(download(figure.get_by_text("CSV")).read_text().splitlines()))
    assert len(rows) == 4 * 5
    assert float(rows[4]["mean"]) == pytest.approx(73.1 * (1 - math.exp(-5)), rel=1e-4)
    assert download(figure.get_by_text("PNG")).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<svg" in download(figure.get_by_text("SVG")).read_text()
    table = list(csv.DictReader(download(opened.page.locator("[data-csv='arms']")).read_text().splitlines()))
    assert [row["arm"] for row in table] == ["small batch", "large batch", "SmoothOut", "AdaSmoothOut"]
    assert float(table[2]["difference"]) == pytest.approx(2.2)
    table = list(csv.DictReader(download(opened.page.locator("[data-csv='sharpness']")).read_text().splitlines()))
    assert {row["arm"] for row in table} == {"small batch", "large batch", "SmoothOut", "AdaSmoothOut"}


def test_a_small_screen_has_no_horizontal_scroll(open_page, demo):
    found = open_page(demo, width=390, height=844)
    found.page.wait_for_function(READY)
    widest = "Math.max(...[...document.querySelectorAll('figure')].map(each => each.getBoundingClientRect().right))"
    for width in (390, 820, 320):
        found.page.set_viewport_size({"width": width, "height": 844})
        found.page.wait_for_function(f"{widest} <= {width}")  # plotly follows the window after a while
        found.page.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert found.overflow() == 0


def test_every_control_is_reached_by_keyboard(opened):
    everything = "[...document.querySelectorAll('a, button, input, select, summary, [tabindex]')].filter(each => each.checkVisibility())"
    count = opened.page.evaluate(f"{everything}.length")
    opened.page.evaluate("window.reached = new Set()")
    for _ in range(count + 5):
        opened.page.keyboard.press("Tab")
        opened.page.evaluate("reached.add(document.activeElement)")
    missed = opened.page.evaluate(
        f"{everything}.filter(each => !reached.has(each)).map(each => each.outerHTML.slice(0, 99))"
    )
    assert missed == []


CONTRAST = """() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const found = getComputedStyle(each).backgroundColor;
      if (found !== "rgba(0, 0, 0, 0)") return found;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const each of document.querySelectorAll("p, li, td, th, button, a, summary, figcaption, figcaption span, code, label, dd, dt, .reach, caption, .plot text")) {
    if (!each.checkVisibility() || !each.textContent.trim() || each.closest(".gl-container, .skip")) continue;
    const style = getComputedStyle(each);
    const colour = each.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(colour), light(behind(each))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5 && !each.closest("[data-figure^='plane'] .scatterlayer")) found.push([ratio, each.outerHTML.slice(0, 120)]);
  }
  return found;
}"""


def settled(opened, script, wanted, seconds=30.0):
    """What a script gives, once it is what is wanted or the time is over: plotly draws after the page has changed."""
    end = time.monotonic() + seconds
    while (found := opened.page.evaluate(script)) != wanted and time.monotonic() < end:
        opened.page.wait_for_timeout(100)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(open_page, demo, scheme):
    found = open_page(demo, colour_scheme=scheme)
    found.page.wait_for_function(READY)
    paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 22, 26)")
    assert settled(found, CONTRAST, []) == []


def test_the_button_changes_colours_against_the_system(opened):
    opened.page.get_by_role("button", name="Colours: as the system").click()
    opened.page.get_by_role("button", name="Colours: light").click()
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    assert settled(opened, CONTRAST, []) == []
    opened.page.get_by_role("button", name="Colours: dark").click()
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_figures_have_words_and_the_page_an_order_of_headings(opened):
    labels = opened.page.evaluate(
        "[...document.querySelectorAll('.plot')].map(each => [each.getAttribute('role'), each.getAttribute('aria-label')])"
    )
    assert all(role == "img" and len(label) > 20 for role, label in labels)
    ends = 73.1 * (1 - math.exp(-5))
    assert any(
        label.startswith(f"test accuracy (%) by epoch. At the end: small batch {ends:.2f}") for _, label in labels
    )
    levels = opened.page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map(each => Number(each.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_print_fits_the_paper_and_is_light(open_page, demo, tmp_path):
    found = open_page(demo, colour_scheme="dark")
    found.page.wait_for_function(READY)
    found.page.set_viewport_size({"width": 680, "height": 900})  # the width between the margins of A4
    found.page.emulate_media(media="print")
    found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert settled(found, "document.documentElement.scrollWidth - document.documentElement.clientWidth", 0) == 0
    spilled = "[...document.querySelectorAll('figure')].filter(each => each.querySelector('.svg-container').getBoundingClientRect().right > each.getBoundingClientRect().right + 1).length"
    assert settled(found, spilled, 0) == 0
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        found.page.evaluate(
            "[...document.querySelectorAll('button')].filter(each => each.checkVisibility() && !each.closest('[data-legend]')).length"
        )
        == 0
    )
    pages = len(re.findall(rb"/Type\s*/Page\b", found.pdf(tmp_path / "page.pdf").read_bytes()))
    assert 2 <= pages <= 8


def test_names_that_are_markup_stay_text(open_page, tmp_path):
    arms = {EVIL: ([70.0, 71.0], None, {}), "other": ([71.0, 72.0], EVIL, {"strength": 0.1})}
    made = report.make([make_comparison(tmp_path / "c", arms, seeds=(0, 1))], EVIL)
    found = open_page(page.write(made, tmp_path / "page.html"))
    found.page.wait_for_function(READY)
    assert found.page.evaluate("window.evil") is None
    assert found.page.get_by_role("button", name=EVIL).count() == 1
    assert found.errors == []
    assert found.requests == []


def test_a_run_that_has_hardly_begun_and_has_no_measures_is_shown(open_page, tmp_path):
    found = open_page(page.write(report.make([make_run(tmp_path / "a", done=1)], ""), tmp_path / "page.html"))
    found.page.wait_for_function(READY)
    assert found.drawn("[data-figure='train_loss-0'] .scatterlayer")
    assert "Sharpness was not measured" in found.page.locator("main").inner_text()
    assert "ago" in found.page.locator("#age").inner_text()
    assert found.errors == []


def test_words_and_tables_are_there_without_scripts(open_page, demo):
    found = open_page(demo, java_script_enabled=False)
    text = found.page.locator("main").inner_text()
    assert "has the highest test accuracy" in text
    assert "The figures need JavaScript" in found.page.content()
