"""`--simplify`: polygons with fewer points that still cover the mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from scipy import ndimage

import promptseg
from promptseg.apps.exports.outlines import edge_polygons, joined_polygon, pixel_polygons
from promptseg.apps.exports.simplify import simplify
from promptseg.pipeline.compact_mask import CompactMask

CAT = Path(__file__).parents[3] / "apps" / "web" / "examples" / "cat.jpg"


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    """The mask of a cat, with its rough outline, (300, 451)."""
    mask: np.ndarray = promptseg.load("pocket")(CAT, "cat").masks[0]
    return mask


def filled(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    image = Image.new("1", (size[1], size[0]))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon([tuple(point) for point in polygon], fill=1, outline=1)
    return np.asarray(image)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(("pixels", "least", "share"), [(1, 0.98, 0.6), (2, 0.97, 0.3),
                                                        (4, 0.94, 0.15)])  # fmt: skip
@pytest.mark.parametrize("trace", [pixel_polygons, edge_polygons])
def test_fewer_points_cover_almost_the_same(cat, trace, pixels, least, share) -> None:
    exact = trace(CompactMask.of(cat))
    fewer = [simplify(polygon, pixels) for polygon in exact]
    assert iou(filled(fewer, cat.shape), cat) > least
    assert sum(map(len, fewer)) < share * sum(map(len, exact))


def test_the_points_are_some_of_the_mask_s_and_all_others_are_near(cat) -> None:
    (exact,) = pixel_polygons(CompactMask.of(cat))[:1]
    fewer = simplify(exact, 2)
    assert {tuple(point) for point in fewer} <= {tuple(point) for point in exact}
    ends = np.roll(fewer, -1, axis=0)
    along = ends - fewer
    share = ((exact[:, None] - fewer) * along).sum(-1) / (along**2).sum(-1)
    nearest = fewer + np.clip(share, 0, 1)[..., None] * along
    assert np.linalg.norm(exact[:, None] - nearest, axis=-1).min(1).max() <= 2


def test_zero_changes_nothing_and_specks_stay() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5, 5], mask[10:12, 10:14] = True, True
    for polygon in pixel_polygons(CompactMask.of(mask)):
        np.testing.assert_array_equal(simplify(polygon, 0), polygon)
    kept = [simplify(polygon, 50) for polygon in pixel_polygons(CompactMask.of(mask))]
    assert len(kept) == 2
    assert all(len(polygon) >= 3 for polygon in kept)
    np.testing.assert_array_equal(filled(kept, mask.shape), mask)


def test_holes_and_joined_parts_stay() -> None:
    rows, columns = np.ogrid[:120, :160]
    distance = np.hypot(rows - 60, columns - 60)
    mask = (distance < 50) & (distance > 25)
    mask |= np.hypot(rows - 60, columns - 140) < 15
    joined = joined_polygon(CompactMask.of(mask))
    found = filled([simplify(joined.polygon, 1.5)], mask.shape)
    assert iou(found, mask) > 0.95
    assert not found[60, 60]
    assert ndimage.label(~found)[1] >= 2  # the hole is closed


@pytest.mark.parametrize("command", [("segment", "-t", "cat"), ("everything",)])
def test_the_formats_with_polygons_take_it(run, loads, cat, command) -> None:
    loads(promptseg.load("pocket"))
    Image.open(CAT).save("cat.png")
    formats = ["labelme", "yolo", "coco-polygons", "coco"]
    points = {}
    for pixels in ("0", "2"):
        done = run(
            command[0], "cat.png", *command[1:], "--out", pixels, "--simplify", pixels,
            *(part for name in formats for part in ("--format", name)),
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        labelme = json.loads(Path(pixels, "labelme/cat.json").read_text())["shapes"]
        yolo = Path(pixels, "yolo/labels/cat.txt").read_text().split("\n")
        coco = COCO(f"{pixels}/coco-polygons/annotations.json")
        exact = COCO(f"{pixels}/coco/annotations.json")
        points[pixels] = (
            sum(len(shape["points"]) for shape in labelme),
            sum(len(line.split()) // 2 for line in yolo),
            sum(len(part) // 2 for item in coco.anns.values() for part in item["segmentation"]),
        )
        for number, item in coco.anns.items():
            mask, own = coco.annToMask(item) > 0, exact.annToMask(exact.anns[number]) > 0
            assert iou(mask, own) > (0.99 if pixels == "0" else 0.85)
    assert all(few < many / 2 for few, many in zip(points["2"], points["0"], strict=True))


@pytest.mark.parametrize("value", ["-1", "101", "nan", "inf"])
def test_other_numbers_are_refused(run, photo, value) -> None:
    done = run("segment", photo, "-t", "cat", "--format", "yolo", f"--simplify={value}")
    assert done.exit_code == 2
    assert "--simplify must be from 0 to 100 pixels, not" in done.stderr


def test_without_a_format_of_polygons_it_is_refused(run, photo) -> None:
    for options in ((), ("--format", "coco"), ("--format", "png", "--format", "voc")):
        done = run("segment", photo, "-t", "cat", "--simplify", "2", *options)
        assert done.exit_code == 2
        assert "give --format labelme, yolo, coco-polygons" in done.stderr


def test_a_run_with_another_tolerance_is_another_run(run, loads, photo) -> None:
    loads(promptseg.load("pocket"))
    common = ("segment", photo.parent, "-t", "cat", "--format", "yolo", "--out", "out")
    assert run(*common).exit_code == 0
    done = run(*common, "--simplify", "2", "--resume")
    assert done.exit_code == 2
    assert "its simplify is 0.0, not 2.0 as in this run" in done.stderr
