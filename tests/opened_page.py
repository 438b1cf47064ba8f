"""A local page in a real browser: what it drew, what went wrong, what it asked the network for."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import find_chromium
import pytest

# WebGL is drawn by SwiftShader, so pictures are the same with and without a GPU; no name resolves. Playwright adds
# --no-sandbox, without which Chromium does not run as root; the pages are the project's own.
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND"]

# A WebGL canvas forgets its pixels once they are on the screen, unless it is made to keep them.
KEEP_PIXELS = """(() => {
  const get = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    return get.call(this, kind, String(kind).includes("webgl") ? {...options, preserveDrawingBuffer: true} : options);
  };
})()"""

DRAWN = """selector => {
  const roots = [...document.querySelectorAll(selector)];
  if (!roots.length) return null;
  const below = (root, kinds) => [...(root.matches(kinds) ? [root] : []), ...root.querySelectorAll(kinds)];
  const within = kinds => roots.flatMap(root => below(root, kinds));
  const colours = canvas => {
    if (!canvas.width || !canvas.height) return false;
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const pixels = new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return pixels.some(pixel => pixel !== pixels[0]);
  };
  const inked = (paint, opacity) => !["none", "transparent", "rgba(0, 0, 0, 0)"].includes(paint) && Number(opacity) > 0;
  const marks = mark => {
    if (mark.closest("defs, clipPath, mask, pattern, symbol, marker")) return false;
    const box = mark.getBoundingClientRect(), style = getComputedStyle(mark);
    if (!(box.width || box.height) || style.visibility !== "visible" || !Number(style.opacity)) return false;
    if (mark.matches("image")) return true;
    if (mark.matches("text") && !mark.textContent.trim()) return false;
    return inked(style.fill, style.fillOpacity) || inked(style.stroke, style.strokeOpacity);
  };
  const canvases = within("canvas");
  if (canvases.length) return canvases.some(colours);
  const kinds = ["path", "line", "rect", "circle", "ellipse", "polyline", "polygon", "text", "image"];
  return within(kinds.map(kind => `svg ${kind}`).join()).some(marks);
}"""


def chosen(environ, record=find_chromium.RECORD):
    """The browser that make browser chose; without one tests are skipped, or fail where CI is set, as in .ci/run."""
    try:
        return find_chromium.recorded(record)
    except find_chromium.NoBrowserError as none:
        end = pytest.fail if environ.get("CI", "").lower() in {"1", "true"} else pytest.skip
        end(str(none))


@dataclass
class OpenedPage:
    """A page in a browser's context of its own; page is Playwright's, for everything not here."""

    page: Any
    uri: str
    _errors: list = field(default_factory=list)
    _requests: list = field(default_factory=list)

    @property
    def errors(self):
        """Error messages on the console, and exceptions that nothing caught, so far."""
        self._catch_up()
        return list(self._errors)

    @property
    def requests(self):
        """Addresses that the page asked for, all in vain, other than itself and data: and blob: URLs."""
        self._catch_up()
        return list(self._requests)

    def drawn(self, selector, seconds=30.0):
        """Whether something is seen at or below the selector, now or within the time.

        Where there is a canvas, one must show two colours; else an SVG must show a mark. Name the canvas, or the layer
        of an SVG, where axes or a background do not count.
        """
        end = time.monotonic() + seconds
        while not (seen := self.page.evaluate(DRAWN, selector)) and time.monotonic() < end:
            self.page.wait_for_timeout(100)
        if seen is None:
            raise LookupError(f"nothing on {self.uri} matches {selector!r}")
        return seen

    def overflow(self):
        """How many pixels the document is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def pdf(self, path):
        """The page as a printer gets it, A4 unless its own style says otherwise."""
        self.page.pdf(path=path, format="A4", prefer_css_page_size=True, print_background=True)
        return Path(path)

    def _catch_up(self):
        # Events come in order, and only while a call waits.
        self.page.evaluate("0")

    def _asked(self, url):
        if url != self.uri and not url.startswith(("data:", "blob:")):
            self._requests.append(url)

    def _route(self, route):
        own = route.request.url == self.uri or route.request.url.startswith(("data:", "blob:"))
        route.continue_() if own else route.abort()

    def _refuse(self, socket):
        self._asked(socket.url)
        socket.close()


def open_in(context, path):
    """Opens a file in a context without a network."""
    page = context.new_page()
    opened = OpenedPage(page, Path(path).resolve(strict=True).as_uri())
    context.set_default_timeout(120_000)
    context.add_init_script(KEEP_PIXELS)
    context.route("**/*", opened._route)
    context.route_web_socket("**/*", opened._refuse)
    context.on("request", lambda request: opened._asked(request.url))
    context.on("console", lambda said: opened._errors.append(f"console: {said.text}") if said.type == "error" else None)
    context.on("weberror", lambda error: opened._errors.append(f"uncaught: {error.error.stack or error.error}"))
    page.on("crash", lambda _: opened._errors.append("the page crashed"))
    page.goto(opened.uri)
    return opened
