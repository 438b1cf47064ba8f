"""The page as text: its data block, what it asks of a network, names that are no markup, and how it is written."""

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
from made_folders import demo_like, make_comparison, make_run
from pydantic import TypeAdapter

from smoothout.cli.main import main
from smoothout.report import page, report
from smoothout.report.record import SCHEMA, Report, to_json

EVIL = '<script>alert("x")</script>&</table>'


def block(text):
    """The JSON block of a page."""
    [found] = re.findall(r'<script type="application/json" id="smoothout-data">(.*?)</script>', text, re.S)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return report.make([demo_like(tmp_path_factory.mktemp("runs") / "demo")], "smoothout report runs/demo")


def test_the_data_block_is_a_valid_record_of_its_version(demo):
    found = block(page.render(demo))
    read = TypeAdapter(Report).validate_json(found, strict=True)
    assert json.loads(found) == json.loads(to_json(read)) == json.loads(to_json(demo))
    assert read.schema == SCHEMA


@pytest.mark.parametrize("broken", [("arms", 3), ("title", None)])
def test_the_validation_can_fail(demo, broken):
    name, value = broken
    content = json.loads(to_json(demo))
    content["groups"][0][name] = value
    with pytest.raises(ValueError, match=name):
        TypeAdapter(Report).validate_json(json.dumps(content), strict=True)


def test_numbers_that_are_none_are_null(tmp_path):
    found = to_json(report.make([make_run(tmp_path / "a")], ""))
    assert "NaN" not in found
    assert "Infinity" not in found
    assert '"low":null' in found


class Tags(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._skip = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.text.append(data)


def test_the_page_asks_for_nothing_outside_itself(demo):
    for tag, attributes in Tags(page.render(demo)).tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "base")


def test_tables_have_captions_and_scopes_and_what_scrolls_is_reached_by_keyboard(demo):
    tags = Tags(page.render(demo)).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") == 4
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    scrolling = [attributes for _, attributes in tags if "scroll" in (attributes.get("class") or "")]
    assert all(each.get("tabindex") == "0" and each.get("role") == "region" for each in scrolling)


def test_names_stay_text(tmp_path):
    arms = {EVIL: ([70.0, 71.0], None, {}), "b" + EVIL: ([71.0, 72.0], EVIL, {"strength": 0.1})}
    folder = make_comparison(tmp_path / "c", arms, seeds=(0, 1))
    text = page.render(report.make([folder], f"smoothout report '{EVIL}'"))
    assert EVIL not in text
    assert json.loads(block(text))["groups"][0]["arms"][0]["name"] == EVIL
    parsed = Tags(text)
    assert [tag for tag, _ in parsed.tags].count("script") == 3
    assert any(EVIL in each for each in parsed.text)


def test_every_number_of_the_summary_s_table_is_on_the_page(demo):
    text = "".join(Tags(page.render(demo)).text)
    for arm in demo.groups[0].arms:
        assert f"{arm.test.mean:.2f}" in text
        assert arm.difference is None or f"({arm.difference.low:+.2f} to {arm.difference.high:+.2f})" in text


def test_the_page_is_written_in_place_and_whole(tmp_path, capsys):
    run = make_run(tmp_path / "a", done=2)
    assert main(["report", str(run)]) == 0
    written = run / "report.html"
    assert capsys.readouterr().out == f"written: {written}\n"
    first = written.stat().st_ino
    make_run(tmp_path / "b")
    assert main(["report", str(run), str(tmp_path / "b"), "-o", str(written)]) == 0
    assert written.stat().st_ino != first  # another file took its place: who reads the old one reads it to its end
    assert [path.name for path in run.iterdir() if path.name.startswith("report")] == ["report.html"]
    assert len(json.loads(block(written.read_text()))["groups"][0]["arms"]) == 2


def test_an_output_in_a_new_folder_is_made(tmp_path):
    assert main(["report", str(make_run(tmp_path / "a")), "-o", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").is_file()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["runs/none"], "runs/none holds no run, comparison, sharpness or landscape; expected a folder that"),
        (["runs/none", "--format", "gif"], "a format is 'gif'; expected one of html, pdf, png, svg."),
        (["runs/none", "--format", "html,pdf"], "format is 'html,pdf'; expected html, whose output is a file, or"),
        ([], "no folder is named; expected some of runs or comparisons, such as runs/NAME."),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_a_line(words, text, capsys):
    try:
        status = main(["report", *words])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    shown = capsys.readouterr()
    assert text in re.sub(r"[\s│]+", " ", shown.err + shown.out)


def test_a_large_report_stays_small(tmp_path):
    folder = demo_like(tmp_path / "big", epochs=200, seeds=5, size=51)
    text = page.render(report.make([folder], ""))
    assert len(text.encode()) < 12e6


def test_the_record_is_plain_values(demo):
    json.dumps(asdict(demo), allow_nan=False)
