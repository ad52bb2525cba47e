"""What users do on the page, step by step; each step waits until the page has followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

Shoot = Callable[[Page, str], None]
# Of the photographs: a place on the suit, and one on the helmet beside it.
SUIT, HELMET = (0.45, 0.8), (0.72, 0.85)
CAT = 451 * 300
# What the pointer does on the stage while a tab is open.
MODES = {
    "Text": "view", "Reference": "view", "Click": "mark", "Everything": "view", "Edit": "edit",
}  # fmt: skip


def stage(page: Page, name: str = "stage") -> Locator:
    return page.locator(f"#{name} .stage")


def upload(page: Page, path: Path, where: str = "picture", on: str = "stage") -> None:
    page.set_input_files(f"#{where} input[type=file]", path)
    expect(stage(page, on)).to_have_attribute("data-photo", path.name)


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    if name in MODES:
        expect(stage(page)).to_have_attribute("data-mode", MODES[name])


def areas(page: Page) -> list[int]:
    return [int(area) for area in (stage(page).get_attribute("data-areas") or "").split()]


def object_areas(page: Page) -> list[int]:
    text = stage(page).get_attribute("data-object-areas") or ""
    return [int(area) for area in text.split()]


def find_text(page: Page, phrases: str) -> None:
    page.locator("#headline .headline").evaluate("element => element.classList.add('stale')")
    page.fill("#phrases textarea", phrases)
    page.click("#find-text")
    page.wait_for_selector("#headline .headline:not(.stale)")


def place(page: Page, where: tuple[float, float], on: str = "stage") -> tuple[float, float]:
    """A place of the photograph, as shares of its size, in the window."""
    photo = page.locator(f"#{on} .stage-photo")
    photo.scroll_into_view_if_needed()
    box = photo.bounding_box()
    assert box is not None
    return box["x"] + where[0] * box["width"], box["y"] + where[1] * box["height"]


def click(page: Page, where: tuple[float, float], marks: int, *, right: bool = False) -> None:
    """Click the photograph and wait until the answer for so many marks is there."""
    page.mouse.click(*place(page, where), button="right" if right else "left")
    expect(stage(page)).to_have_attribute("data-marks", str(marks))


def drag(page: Page, path: list[tuple[float, float]], on: str) -> None:
    points = [place(page, where, on) for where in path]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=6)
    page.mouse.up()
