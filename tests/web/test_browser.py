"""The page in a browser, as its users have it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pycocotools.coco import COCO

from .conftest import find_browser
from .steps import (
    CAT,
    HELMET,
    SUIT,
    Shoot,
    areas,
    click,
    drag,
    find_text,
    place,
    stage,
    tab,
    upload,
)


def test_without_a_browser_the_tests_fail_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        find_browser()


def test_a_phrase_gives_masks_that_tell_their_scores(
    page: Page, pictures: Path, shoot: Shoot
) -> None:
    shoot(page, "start")
    upload(page, pictures / "cat.png")
    find_text(page, "cat, dog")
    headline = page.locator("#headline")
    expect(headline).to_contain_text("Found cat")
    expect(headline).to_contain_text("matches 'dog': presence")
    expect(stage(page)).to_have_attribute("data-count", "1")
    assert 0.5 * CAT < areas(page)[0] < 0.95 * CAT
    page.mouse.move(*place(page, (0.5, 0.5)))
    tip = page.locator("#stage .stage-tip")
    expect(tip).to_be_visible()
    for name in ("1 cat", "score", "IoU prediction", "stability", "prompt"):
        expect(tip).to_contain_text(name)
    page.mouse.move(*place(page, (0.99, 0.05)))
    expect(tip).to_be_hidden()
    expect(page.locator("#gallery .thumbnail-lg")).to_have_count(1)
    shoot(page, "text")
    tab(page, "Scores")
    expect(page.locator("#masks-table tbody tr")).to_have_count(1)
    expect(page.locator("#masks-table")).to_contain_text("cat")
    shoot(page, "scores")
    tab(page, "Rejected")
    expect(page.locator("#rejected-table tbody tr")).to_have_count(1)
    expect(page.locator("#rejected-table")).to_contain_text("dog")


def test_what_is_absent_is_not_found(page: Page, pictures: Path, shoot: Shoot) -> None:
    upload(page, pictures / "cat.png")
    find_text(page, "airplane")
    expect(page.locator("#headline .empty")).to_contain_text("Nothing found.")
    expect(page.locator("#headline")).to_contain_text("presence")
    expect(stage(page)).to_have_attribute("data-count", "0")
    shoot(page, "nothing")


def test_what_seems_absent_is_tried_by_moving_a_slider(
    page: Page, pictures: Path, shoot: Shoot
) -> None:
    upload(page, pictures / "cat.png")
    find_text(page, "dog")
    headline = page.locator("#headline")
    expect(headline).to_contain_text('move "Least presence" to')
    own = page.locator("#own-presence input")
    expect(own).not_to_be_checked()
    page.fill("#min-presence input[type=number]", "0")
    page.press("#min-presence input[type=number]", "Enter")
    expect(headline).to_contain_text("Found")
    expect(own).to_be_checked()
    shoot(page, "least-presence")
    find_text(page, "airplane")  # the next search asks with it too
    expect(headline).to_contain_text("airplane")
    expect(page.locator("#headline .found")).to_be_visible()
    own.uncheck()
    expect(headline).to_contain_text("Nothing found.")


def test_an_example_of_the_page_works(page: Page) -> None:
    page.locator("#examples tbody tr").first.click()
    expect(stage(page)).to_have_attribute("data-photo", "cat.jpg")
    expect(page.locator("#phrases textarea")).to_have_value("cat, dog")


def test_clicks_change_the_mask_and_can_be_undone(page: Page, pictures: Path, shoot: Shoot) -> None:
    upload(page, pictures / "astronaut.png")
    page.mouse.click(*place(page, SUIT))  # clicks count on their tab only
    tab(page, "Click")
    click(page, SUIT, 1)
    first = areas(page)
    assert len(first) == 1
    shoot(page, "click")
    click(page, HELMET, 2, right=True)
    second = areas(page)
    assert len(second) == 1
    assert second != first
    shoot(page, "two-clicks")
    page.click("#undo")
    expect(stage(page)).to_have_attribute("data-marks", "1")
    assert areas(page) == first
    page.locator("#click-tool label", has_text="Background").click()
    click(page, HELMET, 2)
    assert areas(page) == second
    page.click("#clear")
    expect(stage(page)).to_have_attribute("data-marks", "0")
    expect(stage(page)).to_have_attribute("data-count", "0")


def test_a_lone_click_offers_a_whole_and_parts(page: Page, pictures: Path) -> None:
    upload(page, pictures / "astronaut.png")
    tab(page, "Click")
    click(page, (0.62, 0.75), 1)
    page.locator("#part label", has_text="all").click()
    expect(stage(page)).to_have_attribute("data-count", "3")
    sizes = sorted(areas(page), reverse=True)
    assert len(set(sizes)) == 3
    for name, size in zip(("whole", "part", "subpart"), sizes, strict=True):
        page.locator("#part label", has_text=re.compile(rf"^\s*{name} ")).click()
        expect(stage(page)).to_have_attribute("data-areas", str(size))


def test_a_dragged_box_gives_a_mask_within_it(page: Page, pictures: Path) -> None:
    upload(page, pictures / "astronaut.png")
    tab(page, "Click")
    drag(page, [(0.6, 0.6), (0.7, 0.7), (0.95, 0.98)], "stage")
    expect(stage(page)).to_have_attribute("data-count", "1")
    assert 0 < areas(page)[0] <= 0.36 * 0.39 * 512 * 512


def test_a_painted_reference_is_found_in_other_pictures(
    page: Page, pictures: Path, shoot: Shoot
) -> None:
    upload(page, pictures / "cat.png")
    tab(page, "Reference")
    upload(page, pictures / "mirrored.png", "example", "example-stage")
    rows = [0.25 + 0.1 * i for i in range(7)]
    zigzag = [(u, v) for i, v in enumerate(rows) for u in ((0.35, 0.85), (0.85, 0.35))[i % 2]]
    drag(page, zigzag, "example-stage")
    expect(stage(page, "example-stage")).to_have_attribute("data-painted", "true")
    shoot(page, "painted")
    page.click("#find-reference")
    expect(page.locator("#headline")).to_contain_text("Found reference")
    assert 0.2 * CAT < areas(page)[0] < 0.95 * CAT
    shoot(page, "reference")
    page.get_by_role("button", name="More options").click()
    page.set_input_files("#more-pictures input[type=file]", pictures / "mirrored.png")
    expect(page.locator("#more-pictures")).to_contain_text("mirrored")
    page.click("#find-reference")
    found = page.locator("#pictures .thumbnail-lg")
    expect(found).to_have_count(2)
    found.nth(1).click()
    expect(stage(page)).to_have_attribute("data-photo", "mirrored.png")
    shoot(page, "several")


def test_a_clicked_reference_replaces_a_painted_one(page: Page, pictures: Path) -> None:
    upload(page, pictures / "cat.png")
    tab(page, "Reference")
    upload(page, pictures / "cat.png", "example", "example-stage")
    drag(page, [(0.9, 0.1), (0.95, 0.1)], "example-stage")
    expect(stage(page, "example-stage")).to_have_attribute("data-painted", "true")
    page.locator("#example-tool label", has_text="Click").click()
    page.mouse.click(*place(page, (0.5, 0.5), "example-stage"))
    expect(stage(page, "example-stage")).to_have_attribute("data-marks", "1")
    page.click("#find-reference")
    expect(page.locator("#headline")).to_contain_text("Found reference")


def test_everything_is_found_without_a_query(page: Page, pictures: Path, shoot: Shoot) -> None:
    upload(page, pictures / "astronaut.png")
    tab(page, "Everything")
    page.fill("#points-per-side input[type=number]", "4")
    page.keyboard.press("Tab")
    page.click("#find-everything")
    expect(page.locator("#headline .found")).to_contain_text("masks")
    assert int(stage(page).get_attribute("data-count") or 0) > 2
    shoot(page, "everything")


def test_thresholds_rank_again(page: Page, pictures: Path) -> None:
    upload(page, pictures / "astronaut.png")
    find_text(page, "helmet")
    expect(stage(page)).to_have_attribute("data-count", "2")
    best = areas(page)[0]
    page.fill("#top-k input[type=number]", "1")
    page.keyboard.press("Tab")
    expect(stage(page)).to_have_attribute("data-count", "1")
    assert areas(page) == [best]
    page.fill("#min-score input[type=number]", "1")
    page.keyboard.press("Tab")
    expect(page.locator("#headline")).to_contain_text("Nothing found.")
    expect(page.locator("#headline")).to_contain_text("below min_score 1.00")


def test_a_text_file_is_refused_in_plain_words(page: Page, pictures: Path, shoot: Shoot) -> None:
    page.set_input_files("#picture input[type=file]", pictures / "notes.txt")
    expect(page.get_by_text("Invalid file type: notes.txt")).to_be_visible()
    page.set_input_files("#picture input[type=file]", pictures / "notes.png")
    expect(page.locator("#headline .error")).to_contain_text("'notes.png' is not an image")
    assert stage(page).get_attribute("data-photo") is None
    shoot(page, "no-picture")


@pytest.mark.parametrize("kind", ["heic", "empty", "text", "large"])
def test_a_picture_replaced_by_none_is_no_longer_shown(
    page: Page, pictures: Path, tmp_path: Path, kind: str
) -> None:
    bad = tmp_path / {"heic": "photo.heic"}.get(kind, f"{kind}.png")
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    bad.write_bytes({"heic": heic, "empty": b"", "text": b"no picture"}.get(kind, b""))
    if kind == "large":
        Image.new("1", (8000, 8000)).save(bad)
    upload(page, pictures / "cat.png")
    find_text(page, "cat")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    expect(stage(page)).not_to_have_attribute("data-photo", "cat.png")
    page.set_input_files("#picture input[type=file]", bad)
    words = "more than the 50 megapixels" if kind == "large" else f"'{bad.name}' is "
    expect(page.locator("#headline .error")).to_contain_text(words)
    assert stage(page).get_attribute("data-photo") is None
    assert stage(page).get_attribute("data-count") == "0"
    text = page.locator("body").inner_text()
    assert "preprocess" not in text
    assert "promptseg-app-" not in text
    # The page goes on.
    upload(page, pictures / "cat.png")


def test_a_picture_dropped_on_another_replaces_it_even_if_it_is_none(
    page: Page, pictures: Path
) -> None:
    upload(page, pictures / "cat.png")
    data = page.evaluate_handle(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["no picture"], "notes.png", {type: "image/png"}));
            return data;
        }"""
    )
    page.dispatch_event("#picture", "drop", {"dataTransfer": data})
    shown = page.locator("#headline .error").or_(stage(page).and_(page.locator("[data-photo]")))
    expect(shown.first).to_be_visible()


# An image that cannot be loaded runs what is in its attribute.
MARKUP = "<img src=x onerror=document.title=1>"


def test_labels_and_names_run_nothing(page: Page, pictures: Path, tmp_path: Path) -> None:
    title = page.title()
    picture, text = tmp_path / f"{MARKUP}.png", tmp_path / f"{MARKUP}.txt"
    broken = tmp_path / f"{MARKUP}broken.png"
    picture.write_bytes((pictures / "cat.png").read_bytes())
    text.write_text("no picture", encoding="utf-8")
    broken.write_text("no picture", encoding="utf-8")
    page.set_input_files("#picture input[type=file]", text)
    expect(page.get_by_text("Invalid file type").first).to_be_visible()
    page.set_input_files("#picture input[type=file]", broken)
    expect(page.locator("#headline .error")).to_contain_text("is not an image")
    page.set_input_files("#picture input[type=file]", picture)
    expect(stage(page)).to_have_attribute("data-photo", re.compile("onerror"))
    find_text(page, f"cat\n{MARKUP}")
    expect(page.locator("#headline")).to_contain_text("onerror")
    tab(page, "Rejected")
    expect(page.locator("#rejected-table")).to_contain_text(MARKUP)
    tab(page, "Reference")
    page.set_input_files("#example input[type=file]", picture)
    expect(stage(page, "example-stage")).to_have_attribute("data-photo", re.compile("onerror"))
    page.locator("#example-tool label", has_text="Click").click()
    page.mouse.click(*place(page, (0.5, 0.5), "example-stage"))
    expect(stage(page, "example-stage")).to_have_attribute("data-marks", "1")
    page.get_by_role("button", name="More options").click()
    page.fill("#example-label textarea, #example-label input", MARKUP)
    page.click("#find-reference")
    expect(page.locator("#headline")).to_contain_text(f"Found {MARKUP}")
    tab(page, "Scores")
    expect(page.locator("#masks-table")).to_contain_text(MARKUP)
    expect(page.locator("#stage .stage-legend")).to_contain_text(MARKUP)
    page.fill("#example-label textarea, #example-label input", MARKUP * 8)
    page.click("#find-reference")
    expect(page.get_by_text("the label has", exact=False).first).to_be_visible()
    assert page.title() == title
    # Gradio's own message on a file of the wrong type takes its name for markup; that runs nothing.
    script = "images => images.filter(image => !image.closest('[class*=toast]')).length"
    assert page.locator("img[src=x]").evaluate_all(script) == 0


def test_markup_that_got_into_the_page_would_run_nothing(page: Page) -> None:
    title = page.title()
    page.evaluate(f"document.body.insertAdjacentHTML('beforeend', '{MARKUP}')")
    # The picture has failed to load, which would have run the markup.
    page.wait_for_function("document.querySelector('img[src=x]').complete")
    assert page.title() == title


def test_what_is_missing_is_asked_for(page: Page, pictures: Path) -> None:
    page.click("#find-text")
    expect(page.get_by_text("Upload a picture first")).to_be_visible()
    upload(page, pictures / "cat.png")
    page.click("#find-text")
    expect(page.get_by_text("Say what to look for")).to_be_visible()
    page.click("#download-coco")
    expect(page.get_by_text("There is nothing to download yet")).to_be_visible()


def test_a_preset_without_weights_says_what_it_needs(
    page: Page, pictures: Path, shoot: Shoot
) -> None:
    page.get_by_role("button", name="Models").click()
    page.click("#preset input")
    page.get_by_role("option", name="mobile (not ready)").click()
    note = page.locator("#preset-note")
    expect(note).to_contain_text("promptseg models fetch mobile")
    upload(page, pictures / "cat.png")
    page.fill("#phrases textarea", "cat")
    page.click("#find-text")
    expect(page.get_by_text("are missing: run `promptseg models fetch")).to_be_visible()
    shoot(page, "not-ready")


def test_downloads_hold_what_is_shown(page: Page, pictures: Path, tmp_path: Path) -> None:
    upload(page, pictures / "astronaut.png")
    find_text(page, "helmet")
    shown = areas(page)
    files = {}
    for name in ("cutout", "coco", "zip"):
        with page.expect_download() as download:
            page.click(f"#download-{name}")
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    coco = COCO(files["coco"])
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [int(coco.annToMask(item).sum()) for item in annotations] == shown
    assert [item["name"] for item in coco.loadCats(coco.getCatIds())] == ["helmet"]
    masks = np.stack([coco.annToMask(item) for item in annotations]).any(0)
    cutout = np.asarray(Image.open(files["cutout"]))
    assert np.array_equal(cutout[..., 3] == 255, masks)
    photograph = np.asarray(Image.open(pictures / "astronaut.png"))
    assert np.array_equal(cutout[masks, :3], photograph[masks])
    with zipfile.ZipFile(files["zip"]) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        record = json.loads(archive.read("astronaut/coco/annotations.json"))
    assert {"astronaut/astronaut.png", "astronaut/overlay.png"} <= set(names)
    assert len(record["annotations"]) == len(shown)


def test_users_do_not_see_each_other(open_page: Callable[[], Page], pictures: Path) -> None:
    one, other = open_page(), open_page()
    upload(one, pictures / "astronaut.png")
    upload(other, pictures / "cat.png")
    for page in (one, other):
        tab(page, "Click")
    click(one, SUIT, 1)
    click(other, (0.5, 0.5), 1)
    click(one, HELMET, 2, right=True)
    click(other, (0.95, 0.1), 2, right=True)
    assert stage(one).get_attribute("data-photo") == "astronaut.png"
    assert stage(other).get_attribute("data-photo") == "cat.png"
    together = areas(one), areas(other)
    alone = open_page()
    upload(alone, pictures / "astronaut.png")
    tab(alone, "Click")
    click(alone, SUIT, 1)
    click(alone, HELMET, 2, right=True)
    assert areas(alone) == together[0]
    assert areas(alone) != together[1]


def test_nothing_sticks_out_on_a_narrow_screen(page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, pictures / "astronaut.png")
    find_text(page, "helmet")
    for name in ("Text", "Reference", "Click", "Everything", "Masks", "Scores"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_labels_are_text_not_markup(page: Page, pictures: Path) -> None:
    upload(page, pictures / "cat.png")
    tab(page, "Reference")
    upload(page, pictures / "cat.png", "example", "example-stage")
    page.locator("#example-tool label", has_text="Click").click()
    page.mouse.click(*place(page, (0.5, 0.5), "example-stage"))
    expect(stage(page, "example-stage")).to_have_attribute("data-marks", "1")
    page.get_by_role("button", name="More options").click()
    page.fill("#example-label textarea, #example-label input", "<b id=bold>cat ${1+1} {{this}}</b>")
    page.click("#find-reference")
    expect(page.locator("#headline")).to_contain_text("Found <b id=bold>cat ${1+1} {{this}}</b>")
    tab(page, "Scores")
    expect(page.locator("#masks-table")).to_contain_text("<b id=bold>")
    expect(page.locator("#bold")).to_have_count(0)
