"""The Python face: queries, embeddings, proposals, and results as pictures and files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow

from promptseg.models.errors import InputError
from promptseg.pipeline.decoding.everything import EverythingConfig
from promptseg.pipeline.drawing import draw_overlay
from promptseg.pipeline.images import load_image, load_mask
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.query import Query
from promptseg.pipeline.result import RejectedMask, Result

SIZE = (96, 96)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
BOX = (10, 20, 60, 70)


@pytest.fixture
def pipe(obedient_segmenter, make_grounder) -> Pipeline:
    heat = np.full((24, 24), 0.01, np.float32)
    heat[4:12, 4:12] = 0.9
    grounder = make_grounder({"cat": heat})
    return Pipeline(obedient_segmenter, text_prompter=grounder.prompter(obedient_segmenter))


@pytest.fixture
def result() -> Result:
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 20:70, 10:60] = True
    masks[1, 5:15, 70:90] = True
    return Result.of(
        masks=masks,
        labels=["cat", "<b>dog</b>"],
        scores=np.array([0.9, 0.4]),
        iou_predictions=np.array([0.95, 0.5]),
        stability_scores=np.array([0.9, 0.8]),
        prompt_scores=np.array([1.0, 0.7]),
        image=IMAGE,
    )


def same(one: Result, other: Result) -> bool:
    return (
        one.labels == other.labels
        and np.array_equal(one.masks, other.masks)
        and np.array_equal(one.scores, other.scores)
    )


def test_text_may_be_positional(pipe) -> None:
    found = pipe(IMAGE, "cat")
    assert found.labels == ["cat"]
    assert same(found, pipe(IMAGE, text=["cat"]))


def test_an_encoded_image_serves_queries_and_everything(pipe) -> None:
    embedding = pipe.encode_image(IMAGE)
    assert same(pipe(embedding, "cat"), pipe(IMAGE, "cat"))
    config = EverythingConfig(
        points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0, crop_n_layers=1
    )
    from_embedding = pipe.everything(embedding, config=config)
    assert len(from_embedding) > 1
    assert same(from_embedding, pipe.everything(IMAGE, config=config))


def test_proposals_are_ranked_again_and_again(pipe) -> None:
    proposals = pipe.propose(IMAGE, Query(points=(30, 30)))
    assert len(proposals) == 3
    everything = pipe.rank(proposals)
    assert same(pipe.rank(proposals, top_k=1), everything[:1])
    assert len(pipe.rank(proposals, min_score=1.0)) == 0
    with pytest.raises(InputError, match="top_k must be a whole number"):
        pipe.rank(proposals, top_k=0)


def test_one_flat_box_is_one_box(pipe) -> None:
    assert same(pipe(IMAGE, boxes=BOX), pipe(IMAGE, boxes=[BOX]))


def test_a_query_is_checked_when_it_is_made() -> None:
    query = Query([" cat ", "cat", "dog"], negative_text="toy", points=[(1, 2)], boxes=BOX)
    assert query.text == ("cat", "dog")
    assert query.negative_text == ("toy",)
    np.testing.assert_array_equal(query.marks.boxes, [BOX])
    with pytest.raises(InputError, match="text must be text"):
        Query(text=3)
    with pytest.raises(InputError, match="Reference"):
        Query(reference="mug.jpg")
    query.check_fits(SIZE)
    with pytest.raises(InputError, match="outside the image of 30 x 20"):
        Query(points=[(31, 5)]).check_fits((20, 30))
    with pytest.raises(InputError, match="say what to look for"):
        Query(negative_text="dog").check_fits(SIZE)


@pytest.mark.parametrize(
    "text",
    [
        "dog. red car. cat.",
        "dog, red  car,cat",
        "dog\nred car\r\ncat;",
        ["dog", "red car, cat", "dog"],
    ],
)
def test_one_text_may_hold_several_phrases(text) -> None:
    assert Query(text).text == ("dog", "red car", "cat")
    assert Query(negative_text=text).negative_text == ("dog", "red car", "cat")


def test_a_full_stop_within_a_word_is_no_separator() -> None:
    assert Query("1.5 l bottle, mr.bean").text == ("1.5 l bottle", "mr.bean")
    for nothing in ("", " ", "...", ", ;"):
        with pytest.raises(InputError, match="the text is empty"):
            Query(["dog", nothing])


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_images_come_as_tensors_bytes_and_files(tmp_path: Path) -> None:
    image = IMAGE[:40]
    path = tmp_path / "a.png"
    path.write_bytes(png(image))
    tensor = torch.from_numpy(image.copy())
    with path.open("rb") as file:
        sources = [tensor, tensor.permute(2, 0, 1), png(image), io.BytesIO(png(image)), file]
        for source in sources:
            loaded = load_image(source)
            np.testing.assert_array_equal(loaded, image)
            assert loaded.flags.c_contiguous
    mask = image[..., 0] > 127
    for source in (torch.from_numpy(mask), png(mask), io.BytesIO(png(mask))):
        np.testing.assert_array_equal(load_mask(source), mask)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "not an image"),
        (b"GIF89a", "cannot be|not an image|damaged"),
        (io.BytesIO(png(IMAGE)[:200]), "damaged or truncated"),
        (torch.zeros(3, 4, 5), "must be uint8, not float32"),
        (torch.zeros(2, 4, 5, dtype=torch.uint8), "an image array must be"),
        (io.StringIO("text"), "not an image|cannot"),
    ],
    ids=["empty", "header", "cut off", "floats", "channels", "text"],
)
def test_what_is_no_image_is_refused(source: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)


def test_a_result_keeps_its_image_and_draws_it(pipe) -> None:
    found = pipe(IMAGE, "cat")
    np.testing.assert_array_equal(found.image, IMAGE)
    assert not found.image.flags.writeable
    np.testing.assert_array_equal(found.overlay(), draw_overlay(IMAGE, found))
    assert not np.array_equal(found.overlay(), IMAGE)
    assert found[0].image is found.image
    np.testing.assert_array_equal(pipe(IMAGE, "dog").overlay(), IMAGE)


def test_a_result_without_its_image_asks_for_it(result) -> None:
    bare = Result.empty(SIZE)
    assert bare._repr_png_() is None
    for draw in (bare.overlay, bare.show):
        with pytest.raises(InputError, match="does not keep its image; pass the image"):
            draw()
    np.testing.assert_array_equal(bare.overlay(IMAGE), IMAGE)
    with pytest.raises(InputError, match=r"of 96 x 96 pixels, this one has 96 x 40"):
        bare.overlay(IMAGE[:40])
    with pytest.raises(InputError, match="the image must have shape"):
        Result.empty(SIZE, image=IMAGE[:40])


def test_a_result_is_saved_as_the_command_line_does(result, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "out")
    record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert record["files"]["masks"] == ["mask_01_cat.png", "mask_02_b-dog-b.png"]
    assert {"files", *result.to_dict()} == set(record)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["result.json", "overlay.png", *record["files"]["masks"]]
    )
    for name, mask in zip(record["files"]["masks"], result.masks, strict=True):
        np.testing.assert_array_equal(load_mask(folder / name), mask)
    result[:1].save(folder)  # the earlier second mask goes
    assert not (folder / "mask_02_b-dog-b.png").exists()


def test_notebooks_show_the_picture_and_a_table(result) -> None:
    with Image.open(io.BytesIO(result._repr_png_())) as picture:
        np.testing.assert_array_equal(np.asarray(picture), result.overlay())
    page = result._repr_html_()
    assert page.count("<tr>") == 3
    assert "data:image/png;base64," in page
    assert "0.90" in page
    assert "&lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b>dog" not in page
    dropped = RejectedMask("cat & dog", "presence 0.01 below 0.15", 0.01)
    page = Result.empty(SIZE, [dropped])._repr_html_()
    assert "nothing found" in page
    assert "cat &amp; dog: presence 0.01 below 0.15" in page


def test_showing_without_a_display_says_what_to_do(result, monkeypatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(ImageShow, "show", lambda image: shown.append(image) or len(shown) > 1)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    says = r"no display to show the picture on; result.save\('folder'\) writes it"
    with pytest.raises(OSError, match=says):
        result.show()
    assert not shown
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(OSError, match=says):  # no viewer
        result.show()
    result.show()
    assert len(shown) == 2


def test_large_pictures_are_made_smaller_for_notebooks() -> None:
    image = np.zeros((500, 2000, 3), np.uint8)
    with Image.open(io.BytesIO(Result.empty((500, 2000), image=image)._repr_png_())) as picture:
        assert picture.size == (1024, 256)


def test_show_uses_the_notebook_or_the_systems_viewer(result, monkeypatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(ImageShow, "show", lambda image: shown.append(image) or True)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    result.show()
    np.testing.assert_array_equal(np.asarray(shown.pop()), result.overlay())
    display = ModuleType("IPython.display")
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    result.show()
    (again,) = shown
    assert again.labels == result.labels
