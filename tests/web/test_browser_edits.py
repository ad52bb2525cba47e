"""Collecting objects on the page and editing them, in a browser."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Route, expect
from pycocotools.coco import COCO

from .conftest import wait_until_ready
from .steps import (
    HELMET,
    SUIT,
    Shoot,
    areas,
    click,
    drag,
    find_text,
    object_areas,
    place,
    stage,
    tab,
    upload,
)


def entries(page: Page) -> Locator:
    """The objects in the list of the Edit tab."""
    return page.locator("#objects [data-testid=checkbox-group] label")


def expect_objects(page: Page, *names: str) -> None:
    """Wait until the list and the stage have these objects."""
    expect(stage(page)).to_have_attribute("data-objects", str(len(names)))
    expect(page.locator("#stage .stage-legend .object")).to_have_text(
        [f"{i + 1} {name}" for i, name in enumerate(names)]
    )


def choose(page: Page, *positions: int) -> None:
    """Tick exactly these objects in the list, counted from 1."""
    for i in range(entries(page).count()):
        entries(page).nth(i).locator("input").set_checked(i + 1 in positions)
    expect(stage(page)).to_have_attribute("data-chosen", " ".join(map(str, positions)))


def collect_helmets(page: Page, pictures: Path) -> list[int]:
    """Upload the astronaut and collect what "helmet" finds; return the two areas."""
    upload(page, pictures / "astronaut.png")
    find_text(page, "helmet")
    expect(stage(page)).to_have_attribute("data-count", "2")
    found = areas(page)
    page.click("#add")
    expect_objects(page, "helmet", "helmet")
    expect(stage(page)).to_have_attribute("data-count", "0")
    assert object_areas(page) == found
    return found


def wait_for_areas(page: Page, *expected: int) -> None:
    expect(stage(page)).to_have_attribute("data-object-areas", " ".join(map(str, expected)))


def changed_area(page: Page, before: list[int]) -> list[int]:
    """Wait until the objects' areas differ from these, and return them."""
    expect(stage(page)).not_to_have_attribute("data-object-areas", " ".join(map(str, before)))
    return object_areas(page)


def opacity(page: Page, where: tuple[float, float]) -> int:
    """How opaque the objects are drawn at a place of the photograph, from 0 to 255."""
    script = """(canvas, [u, v]) => canvas.getContext('2d').getImageData(
        Math.floor(u * canvas.width), Math.floor(v * canvas.height), 1, 1).data[3]"""
    return int(page.locator("#stage .stage-objects").evaluate(script, where))


def coco_of(page: Page, folder: Path) -> COCO:
    with page.expect_download() as download:
        page.click("#download-coco")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return COCO(path)


def test_objects_of_clicks_and_phrases_make_one_list(
    page: Page, pictures: Path, tmp_path: Path, shoot: Shoot
) -> None:
    helmets = collect_helmets(page, pictures)
    expect(page.locator("#headline")).to_contain_text("Added 2 objects")
    tab(page, "Click")
    click(page, SUIT, 1)
    (suit,) = areas(page)
    page.fill("#add-label input", "suit")
    shoot(page, "collect")
    page.press("#add-label input", "Enter")
    expect_objects(page, "helmet", "helmet", "suit")
    expect(stage(page)).to_have_attribute("data-marks", "0")
    click(page, (0.45, 0.25), 1)
    page.click("#add")
    expect_objects(page, "helmet", "helmet", "suit", "object")
    assert object_areas(page)[:3] == [*helmets, suit]
    tab(page, "Edit")
    expect(entries(page)).to_have_text(["1 helmet", "2 helmet", "3 suit", "4 object"])
    shoot(page, "objects")
    coco = coco_of(page, tmp_path)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [int(coco.annToMask(item).sum()) for item in annotations] == object_areas(page)
    names = {item["id"]: item["name"] for item in coco.loadCats(coco.getCatIds())}
    labels = [names[item["category_id"]] for item in annotations]
    assert labels == ["helmet", "helmet", "suit", "object"]
    with page.expect_download() as download:
        page.click("#download-zip")
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        record = json.loads(archive.read("astronaut/json/astronaut.json"))
        folders = {name.split("/")[1] for name in archive.namelist() if name.count("/") > 1}
    assert [mask["area"] for mask in record["masks"]] == object_areas(page)
    assert folders == {
        "coco", "coco-polygons", "yolo", "labelme", "voc", "cutout", "png", "json",
    }  # fmt: skip


def test_objects_are_renamed_coloured_hidden_merged_and_deleted(
    page: Page, pictures: Path, tmp_path: Path, shoot: Shoot
) -> None:
    first, second = collect_helmets(page, pictures)
    tab(page, "Edit")
    choose(page, 2)
    expect(page.locator("#object-label input")).to_have_value("helmet")
    page.fill("#object-label input", "neck ring")
    page.press("#object-label input", "Enter")
    expect_objects(page, "helmet", "neck ring")
    page.click("#object-color .dialog-button")
    page.locator("#object-color input[type=text]").fill("#ff0000")
    page.locator("#object-color input[type=text]").press("Enter")
    page.locator("h1").click()
    swatch = page.locator("#stage .stage-legend .object i").nth(1)
    expect(swatch).to_have_css("background-color", "rgb(255, 0, 0)")
    shoot(page, "recoloured")
    page.click("#hide")
    expect(entries(page)).to_have_text(["1 helmet", "2 neck ring (hidden)"])
    expect(page.locator("#stage .stage-legend .is-hidden")).to_have_count(1)
    assert len(coco_of(page, tmp_path).getAnnIds()) == 2  # hidden ones are exported, too
    page.click("#hide")
    expect(page.locator("#stage .stage-legend .is-hidden")).to_have_count(0)
    expect(page.locator("#merge")).to_be_disabled()
    choose(page, 1, 2)
    page.click("#merge")
    expect_objects(page, "helmet")
    wait_for_areas(page, first + second)  # they do not overlap
    page.click("#undo")
    expect_objects(page, "helmet", "neck ring")
    choose(page, 1)
    page.click("#delete")
    expect_objects(page, "neck ring")
    expect(entries(page)).to_have_text(["1 neck ring"])
    assert object_areas(page) == [second]


def test_pictures_of_objects_are_sent_once_and_again_where_they_are_lacking(
    page: Page, pictures: Path
) -> None:
    sent: list[int] = []

    def pass_on(route: Route) -> None:
        """Count the masks of an answer to the page, and lose those of the fifth."""
        answer = route.fetch()
        without, found = re.subn('"src":"data:image/png[^"]*"', '"src":""', answer.text())
        sent.append(found)
        route.fulfill(response=answer, body=without if len(sent) == 5 else answer.text())

    first, second = collect_helmets(page, pictures)
    tab(page, "Edit")
    choose(page, 2)
    page.route("**/queue/data*", pass_on)
    page.fill("#object-label input", "neck ring")
    page.press("#object-label input", "Enter")
    expect_objects(page, "helmet", "neck ring")
    page.click("#hide")
    expect(page.locator("#stage .stage-legend .is-hidden")).to_have_count(1)
    assert sent == [0, 0]
    page.click("#hide")  # shown again
    expect(page.locator("#stage .stage-legend .is-hidden")).to_have_count(0)
    page.click("#delete")
    expect_objects(page, "helmet")
    assert sent == [0, 0, 1, 0]
    page.click("#undo")
    # The second one's picture was lost; the stage has asked for all.
    expect_objects(page, "helmet", "neck ring")
    wait_for_areas(page, first, second)
    assert sent[4:] == [1, 2]
    assert opacity(page, (0.4, 0.4)) > 0


def test_the_keyboard_undoes_redoes_and_deletes(page: Page, pictures: Path) -> None:
    found = collect_helmets(page, pictures)
    page.locator("h1").click()  # the keyboard is nobody's
    page.keyboard.press("Control+z")
    expect(stage(page)).to_have_attribute("data-count", "2")  # the answer is back
    expect_objects(page)
    page.keyboard.press("Control+z")
    expect(stage(page)).to_have_attribute("data-count", "0")
    page.keyboard.press("Control+y")
    expect(stage(page)).to_have_attribute("data-count", "2")
    page.keyboard.press("Control+Shift+z")
    expect_objects(page, "helmet", "helmet")
    expect(page.locator("#redo")).to_be_disabled()
    page.keyboard.press("Delete")  # nothing is chosen
    tab(page, "Edit")
    choose(page, 1)
    page.locator("h1").click()
    page.keyboard.press("Delete")
    expect_objects(page, "helmet")
    wait_for_areas(page, found[1])
    page.keyboard.press("Control+z")
    wait_for_areas(page, *found)
    # In a text field the keys are the field's own.
    choose(page, 1)
    field = page.locator("#object-label input")
    field.press_sequentially("x")
    field.press("Control+z")
    field.press("Delete")
    page.keyboard.press("Escape")
    wait_for_areas(page, *found)
    page.locator("h1").click()
    page.keyboard.press("Escape")
    expect(stage(page)).to_have_attribute("data-chosen", "")


def test_undo_brings_a_replaced_picture_back_with_its_objects(page: Page, pictures: Path) -> None:
    found = collect_helmets(page, pictures)
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    expect(stage(page)).not_to_have_attribute("data-photo", "astronaut.png")
    upload(page, pictures / "cat.png")
    expect_objects(page)
    page.click("#undo")
    expect(page.locator("#headline")).to_contain_text("Upload a picture")
    page.click("#undo")
    expect(stage(page)).to_have_attribute("data-photo", "astronaut.png")
    wait_for_areas(page, *found)
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile("astronaut.png$"))


def test_clicks_on_the_stage_choose_objects(page: Page, pictures: Path) -> None:
    collect_helmets(page, pictures)
    tab(page, "Edit")
    page.mouse.click(*place(page, HELMET))
    expect(stage(page)).to_have_attribute("data-chosen", "1")
    expect(entries(page).nth(0).locator("input")).to_be_checked()
    expect(page.locator("#object-label input")).to_have_value("helmet")
    page.keyboard.down("Shift")
    page.mouse.click(*place(page, (0.4, 0.4)))
    page.keyboard.up("Shift")
    expect(stage(page)).to_have_attribute("data-chosen", "1 2")
    page.mouse.click(*place(page, (0.95, 0.05)))
    expect(stage(page)).to_have_attribute("data-chosen", "")
    page.locator("#stage .stage-legend .object").nth(1).click()
    expect(stage(page)).to_have_attribute("data-chosen", "2")
    page.mouse.move(*place(page, HELMET))
    tip = page.locator("#stage .stage-tip")
    expect(tip).to_contain_text("1 helmet")
    expect(tip).to_contain_text("from a phrase, score")
    # Under the pointer, on the picture, below it or in the list, an object stands out.
    chips = page.locator("#stage .stage-legend .object")
    expect(chips.nth(0)).to_have_class(re.compile("pointed"))
    entries(page).nth(1).hover()
    expect(chips.nth(1)).to_have_class(re.compile("pointed"))
    assert opacity(page, HELMET) < opacity(page, (0.4, 0.4))
    chips.nth(0).hover()
    expect(chips.nth(0)).to_have_class(re.compile("pointed"))
    assert opacity(page, HELMET) > opacity(page, (0.4, 0.4))
    page.locator("h1").hover()
    expect(page.locator("#stage .stage-legend .pointed")).to_have_count(0)


def test_a_mask_is_painted_and_erased(page: Page, pictures: Path, shoot: Shoot) -> None:
    first, second = collect_helmets(page, pictures)
    tab(page, "Edit")
    choose(page, 1)
    page.locator("#edit-tool label", has_text="Paint").click()
    expect(stage(page)).to_have_attribute("data-edit", "paint")
    drag(page, [(0.1, 0.3), (0.1, 0.6)], "stage")
    painted, same = changed_area(page, [first, second])
    # A brush of 6% of 512 pixels over 0.3 x 512 of them, away from the mask.
    radius = 0.03 * 512
    capsule = 2 * radius * 0.3 * 512 + np.pi * radius**2
    assert painted - first == pytest.approx(capsule, rel=0.1)
    assert same == second
    shoot(page, "painted-object")
    page.locator("#edit-tool label", has_text="Erase").click()
    expect(stage(page)).to_have_attribute("data-edit", "erase")
    drag(page, [(0.1, 0.25), (0.1, 0.65)], "stage")
    wait_for_areas(page, first, second)  # exactly what was painted is gone
    drag(page, [(0.65, 0.8), (0.8, 0.8)], "stage")
    smaller, _ = changed_area(page, [first, second])
    assert smaller < first
    page.keyboard.press("Control+z")
    wait_for_areas(page, first, second)
    # What is left of nothing goes.
    choose(page, 2)
    page.fill("#edit-brush input[type=number]", "20")
    page.keyboard.press("Tab")
    expect(stage(page)).to_have_attribute("data-brush", "20")
    drag(page, [(0.25, 0.3), (0.6, 0.4), (0.3, 0.45), (0.6, 0.5), (0.25, 0.35)], "stage")
    expect_objects(page, "helmet")


def test_an_object_is_painted_where_nothing_is_chosen(page: Page, pictures: Path) -> None:
    upload(page, pictures / "cat.png")
    expect(page.locator("#headline")).to_contain_text("Now describe, show or click")
    tab(page, "Edit")
    page.locator("#edit-tool label", has_text="Erase").click()
    expect(stage(page)).to_have_attribute("data-edit", "erase")
    drag(page, [(0.2, 0.2), (0.3, 0.2)], "stage")
    expect(page.get_by_text("Choose the object to erase from")).to_be_visible()
    page.locator("#edit-tool label", has_text="Paint").click()
    expect(stage(page)).to_have_attribute("data-edit", "paint")
    # Escape gives up a stroke that is being drawn.
    page.mouse.move(*place(page, (0.5, 0.5)))
    page.mouse.down()
    page.mouse.move(*place(page, (0.6, 0.5)))
    page.keyboard.press("Escape")
    page.mouse.up()
    drag(page, [(0.2, 0.2), (0.3, 0.2)], "stage")
    expect_objects(page, "object")
    expect(stage(page)).to_have_attribute("data-chosen", "1")
    before = object_areas(page)
    drag(page, [(0.2, 0.6), (0.3, 0.6)], "stage")
    (after,) = changed_area(page, before)
    assert after == pytest.approx(2 * before[0], rel=0.05)


def test_the_photograph_is_zoomed_and_moved(page: Page, pictures: Path, shoot: Shoot) -> None:
    upload(page, pictures / "astronaut.png")
    tab(page, "Click")
    click(page, HELMET, 1)
    small = areas(page)
    page.click("#clear")
    expect(stage(page)).to_have_attribute("data-marks", "0")
    page.mouse.move(*place(page, HELMET))
    page.mouse.wheel(0, -300)
    expect(stage(page)).not_to_have_attribute("data-zoom", "1.00")
    zoom = float(stage(page).get_attribute("data-zoom") or 0)
    assert zoom == pytest.approx(np.exp(300 / 400), rel=0.01)
    # What is under the pointer stays there: the same click has the same answer.
    page.mouse.click(*place(page, HELMET))
    expect(stage(page)).to_have_attribute("data-marks", "1")
    assert areas(page) == small
    shoot(page, "zoomed")
    page.click("#clear")
    expect(stage(page)).to_have_attribute("data-marks", "0")
    tab(page, "Edit")
    corner = place(page, (0.0, 0.0))
    middle = page.locator("#stage .stage-window").bounding_box()
    assert middle is not None
    x, y = middle["x"] + middle["width"] / 2, middle["y"] + middle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 25, steps=4)
    page.mouse.up()
    moved = place(page, (0.0, 0.0))
    assert moved == pytest.approx((corner[0] + 40, corner[1] + 25), abs=1)
    # With the space bar held the pointer moves the photograph, and marks nothing.
    tab(page, "Click")
    page.mouse.move(x, y)
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(x - 40, y - 25, steps=4)
    page.mouse.up()
    page.keyboard.up(" ")
    assert place(page, (0.0, 0.0)) == pytest.approx(corner, abs=1)
    expect(stage(page)).to_have_attribute("data-marks", "0")
    page.get_by_label("Whole picture").first.click()
    expect(stage(page)).to_have_attribute("data-zoom", "1.00")
    page.locator("#stage").get_by_label("Zoom in").click()
    expect(stage(page)).to_have_attribute("data-zoom", "1.50")
    page.locator("#stage").get_by_label("Zoom out").click()
    expect(stage(page)).to_have_attribute("data-zoom", "1.00")


def test_two_fingers_zoom_and_move(page: Page, pictures: Path) -> None:
    upload(page, pictures / "astronaut.png")
    middle = place(page, (0.5, 0.5))
    window = page.locator("#stage .stage-window")

    def touch(kind: str, finger: int, x: float, y: float) -> None:
        fields = {"pointerId": finger, "pointerType": "touch", "clientX": x, "clientY": y}
        window.dispatch_event(f"pointer{kind}", {**fields, "bubbles": True, "button": 0})

    for finger, side in ((1, -50), (2, 50)):
        touch("down", finger, middle[0] + side, middle[1])
    for finger, side in ((1, -100), (2, 100)):
        touch("move", finger, middle[0] + side, middle[1])
    for finger, side in ((1, -100), (2, 100)):
        touch("up", finger, middle[0] + side, middle[1])
    expect(stage(page)).to_have_attribute("data-zoom", "2.00")
    assert place(page, (0.5, 0.5)) == pytest.approx(middle, abs=2)
    expect(stage(page)).to_have_attribute("data-chosen", "")


def test_a_reload_keeps_what_was_done(
    page: Page, open_page: Callable[[], Page], pictures: Path
) -> None:
    found = collect_helmets(page, pictures)
    tab(page, "Click")
    click(page, SUIT, 1)
    click(page, HELMET, 2, right=True)
    answer = areas(page)
    page.reload()
    wait_until_ready(page)
    expect(stage(page)).to_have_attribute("data-photo", "astronaut.png")
    wait_for_areas(page, *found)
    expect(stage(page)).to_have_attribute("data-count", "1")
    expect(stage(page)).to_have_attribute("data-marks", "2")
    assert areas(page) == answer
    page.click("#undo")
    expect(stage(page)).to_have_attribute("data-marks", "1")
    page.click("#undo")
    page.click("#undo")
    expect_objects(page)
    expect(stage(page)).to_have_attribute("data-count", "2")
    page.reload()
    wait_until_ready(page)
    expect(page.locator("#phrases textarea")).to_have_value("helmet")
    expect(stage(page)).to_have_attribute("data-count", "2")
    page.click("#redo")
    wait_for_areas(page, *found)
    # Another tab begins with nothing, and one user's key is no other's.
    other = open_page()
    expect(stage(other)).to_have_attribute("data-objects", "0")
    assert stage(other).get_attribute("data-photo") is None


def test_a_search_is_cancelled_with_escape(page: Page, pictures: Path) -> None:
    upload(page, pictures / "astronaut.png")
    tab(page, "Everything")
    page.fill("#points-per-side input[type=number]", "64")
    page.keyboard.press("Tab")
    page.click("#find-everything")
    expect(page.locator("#cancel")).to_be_visible()
    page.locator("h1").click()
    page.keyboard.press("Escape")
    expect(page.locator("#headline")).to_contain_text("Cancelled.")
    expect(page.locator("#cancel")).to_be_hidden()
    tab(page, "Text")
    page.fill("#phrases textarea", "helmet")
    page.press("#phrases textarea", "Enter")
    expect(page.locator("#headline")).to_contain_text("Found")
    expect(page.locator("#phrases textarea")).to_have_value("helmet")  # without a new line


def test_escape_clears_the_clicks(page: Page, pictures: Path) -> None:
    upload(page, pictures / "astronaut.png")
    tab(page, "Click")
    click(page, SUIT, 1)
    page.keyboard.press("Escape")
    expect(stage(page)).to_have_attribute("data-marks", "0")
    page.keyboard.press("Control+z")
    expect(stage(page)).to_have_attribute("data-marks", "1")


def test_the_page_with_objects_fits_a_narrow_screen(
    page: Page, pictures: Path, shoot: Shoot
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    collect_helmets(page, pictures)
    for name in ("Text", "Reference", "Click", "Everything", "Edit"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
