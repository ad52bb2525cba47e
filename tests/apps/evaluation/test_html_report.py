"""The page of `promptseg eval --report`."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from promptseg.apps.evaluation.html_report import write_report
from promptseg.apps.evaluation.reliability import calibration_error, draw_diagram, score_bins
from promptseg.apps.evaluation.tasks.base import Shown

SCORED = [(0.05, 0.2), (0.7, 0.5), (0.75, 0.9), (0.72, 1.0), (1.0, 0.6), (1.2, 1.0), (-0.1, 0.0)]


class Page(HTMLParser):
    """The texts of a page's tags, and what its attributes would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_masks_are_counted_by_tenths_of_their_scores() -> None:
    bins = score_bins(SCORED)
    assert [(item.low, item.count) for item in bins] == [(0.0, 2), (0.7, 3), (0.9, 2)]
    assert bins[1].score == pytest.approx((0.7 + 0.75 + 0.72) / 3)
    assert bins[1].iou == pytest.approx(0.8)
    np_scores = [(float(np.float32(0.7)), 1.0), (float(np.float32(0.3)), 1.0)]
    assert [item.low for item in score_bins(np_scores)] == [0.3, 0.7]
    assert score_bins([]) == []


def test_the_calibration_error_is_the_gap_weighted_by_masks() -> None:
    bins = score_bins([(0.2, 0.4), (0.2, 0.4), (0.2, 0.4), (0.8, 0.4)])
    assert calibration_error(bins) == pytest.approx((3 * 0.2 + 0.4) / 4)


def test_the_diagram_puts_each_tenth_where_it_belongs() -> None:
    """A dot right of and below another has the higher score and the lower IoU."""
    bins = score_bins([(0.0, 1.0), *[(1.0, 0.0)] * 4, (0.5, 0.5)])
    root = ElementTree.fromstring(draw_diagram(bins))
    dots = [{k: float(v) for k, v in dot.items()} for dot in root.iter("circle")]
    assert [dot["cx"] for dot in dots] == sorted(dot["cx"] for dot in dots)
    assert [dot["cy"] for dot in dots] == sorted(dot["cy"] for dot in dots)
    assert dots[1]["cx"] == pytest.approx((dots[0]["cx"] + dots[2]["cx"]) / 2)
    assert dots[2]["r"] == pytest.approx(2 * dots[0]["r"], abs=0.1)  # four times the area
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for dot in dots:
        assert dot["r"] <= dot["cx"] <= width - dot["r"]
        assert dot["r"] <= dot["cy"] <= height - dot["r"]


def test_a_page_is_whole_and_runs_nothing(tmp_path: Path) -> None:
    """Labels are text whatever they contain; nothing is fetched."""
    image = np.full((20, 40, 3), 90, np.uint8)
    mask = np.zeros((20, 40), bool)
    mask[5:15, 10:30] = True
    evil = "<script>alert(1)</script> & \ud800 \x1b[2J"
    path = tmp_path / "new" / "report.html"
    write_report(
        path,
        evil,
        settings={"data": evil},
        by_source={evil: {"objects": 3, "mIoU": 0.25}, "all": {"objects": 3, "mIoU": 0.25}},
        by_class={evil: {"mIoU": 0.25}, "猫": {"mIoU": 1.0, "rare figure": 0.125}},
        scored=SCORED,
        shown=[Shown(evil, image, mask, None)],
        skipped=2,
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert {"猫", "3", "0.250", "0.125", "mIoU", "rare figure", "0.7 to 0.8"} <= set(page.words)
    assert sum("<script>alert(1)</script> &" in words for words in page.words) >= 5
    assert "2 of the data's entries and images could not be read and did not count." in page.words
    (picture,) = page.loads
    kind, _, data = picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as cell:
        assert cell.size == (360, 360)
        assert len(np.unique(np.asarray(cell).reshape(-1, 3), axis=0)) > 3
    assert not re.search(r"https?:|url\(|@import", path.read_text(encoding="utf-8"))


def test_a_page_without_scores_classes_or_failures(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(
        path, "t", settings={}, by_source={"all": {"n": 1}}, by_class={}, scored=[], shown=[]
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert "nothing went wrong" in page.words
    assert not {"svg", "img"} & set(page.tags)
    assert "By class" not in page.words
