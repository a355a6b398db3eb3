"""The report and the documentation in a real browser, wide in light and narrow in dark.

Needs Playwright (the extra ``docs``) and a Chromium in PATH; nothing is downloaded. To look at the
pages, each in all four: ``SCREENSHOTS=folder python -m pytest tests/test_browser.py``.
"""

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp
from lowprec import train

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install it")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium in PATH")

LIMIT = 600_000  # milliseconds; what takes longer hangs, on a busy machine too
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

WIDTHS = {"desktop": 1280, "phone": 390}
DOCUMENTS = ["index.html", "choosing.html", "glossary.html", "guides/accumulation.html"]
DOCUMENTS += ["notebooks/01_what_16_bits_can_hold.html", "reference/casting.html"]

# Elements that reach beyond the window, but for those that scroll in a box of their own.
BEYOND = """() => {
  const scrolls = (element) => {
    let box = element.parentElement;
    while (box && getComputedStyle(box).overflowX === "visible") box = box.parentElement;
    return box && box !== document.body && box !== document.documentElement;
  };
  return [...document.body.querySelectorAll("*")].filter((element) => {
    const place = element.getBoundingClientRect();
    return place.width > 1 && place.height > 1 && place.left < innerWidth
      && place.right > innerWidth + 1 && !scrolls(element);
  }).map((element) => `${element.tagName} ${element.className}: ${element.textContent}`);
}"""

# Pictures that say nothing to a reader who does not see them.
SILENT = """() => [...document.querySelectorAll("img, svg, canvas")].filter((picture) =>
  picture.checkVisibility() && !picture.closest("[aria-hidden=true], label, button, a, form")
  && !(picture.getAttribute("alt") || picture.getAttribute("aria-label") || "").trim()
).map((picture) => picture.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, timeout=LIMIT)
        yield started
        started.close()


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serve files, and say nothing about it."""

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site(built_site):
    """Return where the documentation is served, on this machine."""
    handler = functools.partial(Silent, directory=built_site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def report(written_report):
    """Return the report's page, measured shortly."""
    return written_report[0]


def visit(browser, address, width, scheme):
    """Open a page; return it, what its console said, and what it asked the network for."""
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme)
    page.set_default_timeout(LIMIT)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address, wait_until="load")
    page.wait_for_timeout(150)
    here = r"(file|data|blob|about):|http://127\.0\.0\.1:"
    return page, said, [url for url in asked if not re.match(here, url)]


def check(browser, address, width, scheme):
    """Hold a page to the laws of this file."""
    page, said, asked = visit(browser, address, width, scheme)
    try:
        if folder := os.environ.get("SCREENSHOTS"):
            name = f"{Path(address).stem}-{width}-{scheme}.png"
            page.screenshot(path=Path(folder) / name, full_page=True)
        assert said == []
        assert asked == []
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
        assert page.evaluate(BEYOND) == []
        assert page.evaluate(SILENT) == []
        assert page.evaluate("document.title")
    finally:
        page.close()


SCREENS = [("desktop", "light"), ("phone", "dark")]  # what is checked knows no colours
if os.environ.get("SCREENSHOTS"):
    SCREENS = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")]


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_report_fits_and_speaks_and_needs_no_network(browser, report, width, scheme):
    check(browser, report.as_uri(), width, scheme)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the folder of the other pages that lowprec writes: of a comparison and of a run."""
    for needed in ("matplotlib", "jinja2"):
        pytest.importorskip(needed, reason="the pages need the extra report")
    folder = tmp_path_factory.mktemp("pages")
    numbers = np.random.default_rng(0).lognormal(-9, 4, 1000)
    comparison = lp.compare({"gradients": numbers, "layers.0." * 8 + "weight": numbers})
    (folder / "compare.html").write_text(comparison.to_html(), encoding="utf-8")
    data, recorder = train.data.get("quadratic"), train.Recorder()
    hidden = [train.Dense(8, activation="relu") for _ in range(4)]
    model = train.Sequential([train.Input(data.input_shape), *hidden, train.Dense(1)])
    how = {"loss": "mse", "optimizer": "adam", "policy": "float16", "epochs": 2}
    train.fit(model, data, recorder=recorder, verbose=False, **how)
    recorder.report(folder / "record.html")
    return folder


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
@pytest.mark.parametrize("name", ["compare", "record"])
def test_pages_fit_and_speak_and_need_no_network(browser, pages, name, width, scheme):
    check(browser, (pages / f"{name}.html").as_uri(), width, scheme)


def test_a_desktop_shows_every_column_of_the_report(browser, report):
    page, _, _ = visit(browser, report.as_uri(), "desktop", "light")
    hidden = """() => [...document.querySelectorAll("table")].map((table) => table.parentElement)
      .map((box) => box.scrollWidth - box.clientWidth)"""
    assert max(page.evaluate(hidden)) <= 0
    page.close()


def test_the_report_is_dark_where_the_reader_wants_it_dark(browser, report):
    colours = set()
    for scheme in ("light", "dark"):
        page, _, _ = visit(browser, report.as_uri(), "desktop", scheme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(colours) == 2


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documentation_fits_and_speaks_and_needs_no_network(
    browser, site, document, width, scheme
):
    check(browser, f"{site}/{document}", width, scheme)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_needs_no_scrolling_on_a_desktop(browser, site, document):
    page, _, _ = visit(browser, f"{site}/{document}", "desktop", "light")
    hidden = """[...document.querySelectorAll("pre > code")].filter(
      (code) => code.scrollWidth > code.clientWidth).map((code) => code.textContent)"""
    assert page.evaluate(hidden) == []
    page.close()


def test_the_search_finds_a_page_without_the_network(browser, site):
    page, said, asked = visit(browser, f"{site}/index.html", "desktop", "light")
    search = page.locator("[data-md-component=search-query]")
    search.press_sequentially("Kahan")  # the search listens to keys: fill() presses none
    page.wait_for_selector(".md-search-result__item a[href*=accumulation]")
    assert said == []
    assert asked == []
    page.close()


def test_an_overflowing_silent_page_that_calls_out_is_found(browser, tmp_path):
    """The tests above can fail."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<title>bad</title><div style='width:3000px'>wide</div>"
        "<img src='https://example.invalid/picture.png' width='9' height='9'>"
        "<script>console.error('oh')</script>"
    )
    page, said, asked = visit(browser, path.as_uri(), "phone", "light")
    assert any("oh" in line for line in said)
    assert asked == ["https://example.invalid/picture.png"]
    assert len(page.evaluate(BEYOND)) == 1
    assert len(page.evaluate(SILENT)) == 1
    page.close()
