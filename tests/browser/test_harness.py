"""Pages that are as they should be and pages that are not: every helper of open_page tells them apart."""

import asyncio
import re

import pytest

# Nothing may be loaded, and no text may become code: the helpers do not depend on a page that allows it.
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

GOOD = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>good</title>
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<style>
h2 {{ break-before: page; }}
@media (prefers-color-scheme: dark) {{ body {{ background: rgb(1, 2, 3); }} }}
</style>
<p>Text<h2>On a new page</h2>
<img alt="" src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==">
<div id="gl"><canvas width="40" height="30"></canvas></div>
<div id="flat"><canvas width="40" height="30"></canvas></div>
<div id="svg"><svg width="40" height="30"><g id="layer"><path d="M0 0L9 9" stroke="red"/></g></svg></div>
<div id="letters"><svg width="40" height="30"><text y="20">a</text></svg></div>
<script>
const get = "a name that a page may use";
const gl = document.querySelector("#gl canvas").getContext("webgl");
gl.enable(gl.SCISSOR_TEST);
gl.scissor(5, 5, 10, 10);
gl.clearColor(1, 0, 0, 1);
gl.clear(gl.COLOR_BUFFER_BIT);
const flat = document.querySelector("#flat canvas").getContext("2d");
setTimeout(() => flat.fillRect(5, 5, 10, 10), 200);
const image = new Image();
image.src = URL.createObjectURL(new Blob(["<svg xmlns='http://www.w3.org/2000/svg'/>"], {{type: "image/svg+xml"}}));
console.warn("not an error");
</script></html>"""

BAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>bad</title>
<script src="https://cdn.invalid/plotly.js"></script><script src="beside.js"></script>
<div style="width: 1500px">wide</div>
<div id="gl"><canvas width="40" height="30"></canvas></div>
<div id="flat"><canvas width="40" height="30"></canvas></div>
<div id="mixed"><canvas width="40" height="30"></canvas><svg width="40" height="30"><path d="M0 0L9 9"/></svg></div>
<div id="none"></div>
<div id="svg"><svg width="40" height="30">
  <defs><path d="M0 0L9 9" stroke="red"/></defs> <rect width="9" height="9" fill="none"/> <text y="20"> </text>
  <circle r="5" style="visibility: hidden"/> <path d=""/> <rect width="9" height="9" style="display: none"/>
  <rect width="9" height="9" opacity="0"/> <path d="M0 0L9 9" fill="red" fill-opacity="0"/>
</svg></div>
<script>
const gl = document.querySelector("#gl canvas").getContext("webgl");
gl.clearColor(1, 0, 0, 1);
gl.clear(gl.COLOR_BUFFER_BIT);
document.querySelector("#flat canvas").getContext("2d").fillRect(0, 0, 40, 30);
console.error("said", 1);
fetch("https://api.invalid/numbers").catch(() => 0);
new WebSocket("wss://socket.invalid/live");
Promise.reject(new Error("nobody waits"));
throw new TypeError("thrown");
</script></html>"""


@pytest.fixture
def page(tmp_path, open_page):
    def write(text, **more):
        path = tmp_path / "page.html"
        path.write_text(text)
        return open_page(path, **more)

    return write


def test_good(page, tmp_path):
    good = page(GOOD)
    assert good.drawn("#gl")
    assert good.drawn("#flat canvas")
    assert good.drawn("#svg")
    assert good.drawn("#layer")
    assert good.drawn("#letters")
    assert good.errors == []
    assert good.requests == []
    assert good.overflow() == 0
    assert pages(good.pdf(tmp_path / "good.pdf")) == 2


def test_bad(page, tmp_path):
    (tmp_path / "beside.js").write_text("document.body.innerHTML = ''")
    bad = page(BAD)
    for part in ("gl", "flat", "mixed", "none", "svg"):
        assert not bad.drawn(f"#{part}", seconds=0.3), part
    assert bad.drawn("#mixed svg")
    with pytest.raises(LookupError, match=r"nothing on file:.*/page.html matches '#absent'"):
        bad.drawn("#absent", seconds=0)
    beside = (tmp_path / "beside.js").as_uri()
    hosts = {"https://cdn.invalid/plotly.js", "https://api.invalid/numbers", "wss://socket.invalid/live"}
    assert set(bad.requests) == {beside, *hosts}
    assert [text.partition("\n")[0] for text in bad.errors if "Failed to load" not in text] == [
        "console: said 1",
        "uncaught: TypeError: thrown",
        "uncaught: Error: nobody waits",
    ]
    assert sum("Failed to load resource: net::ERR_FAILED" in text for text in bad.errors) == 3
    assert bad.overflow() > 200
    assert pages(bad.pdf(tmp_path / "bad.pdf")) == 1


def pages(pdf):
    return len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))


def test_errors_come_up_to_date(page):
    good = page(GOOD)
    good.page.evaluate("console.error('later'); fetch('https://late.invalid/').catch(() => 0); 0")
    later, *refused = good.errors
    assert later == "console: later"
    assert "violates the following Content Security Policy" in refused[0]
    assert good.requests == []
    with good.page.context.expect_event("request"):  # another page's events come in an order of their own
        good.page.evaluate("window.open('https://other.invalid/'); 0")
    assert good.requests == ["https://other.invalid/"]


def test_the_window_is_as_asked(page):
    light, dark = page(GOOD), page(GOOD, width=400, height=700, colour_scheme="dark", reduced_motion=True)
    asked = """() => [innerWidth, innerHeight, getComputedStyle(document.body).backgroundColor,
                     matchMedia("(prefers-reduced-motion: reduce)").matches]"""
    assert light.page.evaluate(asked) == [1280, 900, "rgba(0, 0, 0, 0)", False]
    assert dark.page.evaluate(asked) == [400, 700, "rgb(1, 2, 3)", True]
    assert page(BAD, width=1600).overflow() == 0
    assert page(BAD, java_script_enabled=False).errors == page(GOOD, java_script_enabled=False).errors == []


def test_one_browser_and_other_loops_after_it(chromium, request):
    async def nothing():
        return 1

    assert asyncio.run(nothing()) == 1
    browser = request.getfixturevalue("browser")
    assert browser is chromium[0]
    with pytest.raises(RuntimeError, match="running event loop"):
        asyncio.run(never := nothing())
    never.close()


def test_a_surface_of_plotly_is_drawn(page):
    import plotly.graph_objects as go

    surface = go.Figure(go.Surface(z=[[1, 0, 1], [0, 1, 0]]), {"width": 400, "height": 300})
    opened = page(surface.to_html(include_plotlyjs=True, config={"plotGlPixelRatio": 1}))
    assert opened.drawn(".gl-container canvas")
    assert (opened.errors, opened.requests) == ([], [])
