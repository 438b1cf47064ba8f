"""Chromium for tests of pages: open_page(path) opens one; make browser says which Chromium."""

import asyncio
import os

import pytest
from opened_page import FLAGS, chosen, open_in


def pytest_collection_modifyitems(items):
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium():
    """One Chromium for all tests, and the asyncio loop that Playwright drives it with."""
    path = chosen(os.environ)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield started, loop
        asyncio._set_running_loop(loop)
        started.close()


@pytest.fixture
def browser(chromium):
    """Playwright's browser. Its asyncio loop counts as running during the test only: others may run their own."""
    started, loop = chromium
    asyncio._set_running_loop(loop)
    yield started
    asyncio._set_running_loop(None)


@pytest.fixture
def open_page(browser):
    """Opens a local file without a network; more is for Playwright's Browser.new_context."""
    contexts = []

    def opened(path, *, width=1280, height=900, colour_scheme="light", reduced_motion=False, **more):
        motion = "reduce" if reduced_motion else "no-preference"
        more |= {"viewport": {"width": width, "height": height}, "color_scheme": colour_scheme}
        contexts.append(browser.new_context(reduced_motion=motion, service_workers="block", **more))
        return open_in(contexts[-1], path)

    yield opened
    for context in contexts:
        context.close()
