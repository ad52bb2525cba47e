"""The page of `promptseg eval --report` in a browser, on a screen and on a phone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from promptseg.apps.evaluation.html_report import write_report
from promptseg.apps.evaluation.tasks.base import Shown

from .conftest import WIDTHS

FIGURES = {f"figure {number}": number / 20 for number in range(20)}
# A label that would push the page apart.
ENDLESS = "x" * 200


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    image = np.full((60, 90, 3), 120, np.uint8)
    mask = np.zeros((60, 90), bool)
    mask[10:50, 10:60] = True
    write_report(
        path,
        "pocket, text, dev",
        settings={"task": "text", "weights": "0" * 64, "data": ENDLESS},
        by_source={"mine": FIGURES, "all": FIGURES},
        by_class={"dining table": FIGURES, "bus": FIGURES, ENDLESS: FIGURES},
        scored=[(number / 20, number / 25) for number in range(20)],
        shown=[Shown(ENDLESS, image, mask, mask)] * 5,
    )
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_fits_the_screen_and_fetches_nothing(
    browser: Browser, report: Path, width: str
) -> None:
    wide, high = WIDTHS[width]
    context = browser.new_context(viewport={"width": wide, "height": high})
    page = context.new_page()
    fetched: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(report.as_uri())
    assert [url for url in fetched if not url.startswith("data:")] == [report.as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= wide
    names = lines_of_names(page)
    assert names["dining table"] == names["bus"] == names["0.9 to 1.0"] == 1
    pictures = page.locator("figure img")
    assert pictures.count() == 5
    assert all(pictures.evaluate_all("all => all.map(one => one.naturalWidth > 0)"))
    # What is too wide can be scrolled to, and the diagram is as wide as the screen lets it.
    last = page.locator("table").last.locator("td").nth(len(FIGURES) - 1)
    last.scroll_into_view_if_needed()
    assert last.bounding_box()["x"] < wide
    assert 300 < page.locator("svg").bounding_box()["width"] < 430
    context.close()


def lines_of_names(page: Page) -> dict[str, int]:
    """How many lines each name of a row takes."""
    return page.locator("tbody th").evaluate_all(
        """all => Object.fromEntries(all.map(one => {
            const range = document.createRange();
            range.selectNodeContents(one);
            const tops = [...range.getClientRects()].map(box => Math.round(box.top));
            return [one.textContent, new Set(tops).size];
        }))"""
    )
