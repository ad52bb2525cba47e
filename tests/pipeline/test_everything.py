"""Everything mode: the official generator's masks, in memory that the points do not fill."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamAutomaticMaskGenerator
from segment_anything import modeling as official
from segment_anything.utils import amg
from skimage import measure
from torch import Tensor

from promptseg.models import InputError
from promptseg.models.embedding import ImageFeatures
from promptseg.models.sam.sam import Sam
from promptseg.pipeline import EverythingConfig, Pipeline, Segmenter
from promptseg.pipeline.decoding import upscaling
from promptseg.pipeline.decoding.everything import crop_boxes, segment_everything
from promptseg.pipeline.decoding.grid import point_grid
from promptseg.pipeline.masks import remove_small_regions, tight_box
from promptseg.pipeline.pipeline import PipelineConfig
from promptseg.pipeline.result import Result
from promptseg.pipeline.scoring.ranking import RankingConfig, combined_score, rank

SIZE = (240, 320)
# For the weights below: a grid and thresholds that leave some masks and drop others.
BASE = EverythingConfig(
    points_per_side=8,
    points_per_batch=40,
    pred_iou_thresh=0.45,
    stability_score_thresh=0.75,
    stability_score_offset=0.05,
)
LOOSE = replace(BASE, stability_score_thresh=0.6)
CONFIGS = {
    "plain": BASE,
    "strict": replace(BASE, pred_iou_thresh=0.55, box_nms_thresh=0.4, points_per_side=11),
    "unfiltered": replace(
        BASE, pred_iou_thresh=0.0, stability_score_thresh=0.0, points_per_side=5, box_nms_thresh=1.0
    ),
    "crops": replace(LOOSE, crop_n_layers=1, crop_n_points_downscale_factor=2, crop_nms_thresh=0.5),
    "deep-crops": replace(LOOSE, crop_n_layers=2, crop_overlap_ratio=0.6, points_per_side=4),
    "small-regions": replace(BASE, min_mask_region_area=150),
    "crops-and-small-regions": replace(
        LOOSE, crop_n_layers=1, min_mask_region_area=200, crop_nms_thresh=0.9, points_per_side=5
    ),
    "huge-regions": replace(BASE, min_mask_region_area=10**6),
}


def components(mask: np.ndarray, connectivity: int) -> tuple[int, np.ndarray, np.ndarray, None]:
    """OpenCV's connectedComponentsWithStats by scikit-image; of the statistics only the area."""
    assert connectivity == 8
    labels, count = measure.label(mask, connectivity=2, return_num=True)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    return count + 1, labels, np.stack([areas] * 5, axis=1), None


@pytest.fixture(scope="module", autouse=True)
def opencv() -> Iterator[None]:
    """Stand in for OpenCV, of which the official code calls that one function."""
    with pytest.MonkeyPatch.context() as patch:
        fake = SimpleNamespace(connectedComponentsWithStats=components)
        patch.setitem(sys.modules, "cv2", fake)
        yield


@pytest.fixture(scope="module")
def pair(reference: official.Sam, sam: Sam) -> tuple[Sam, official.Sam]:
    """Both models with weights whose masks are small and depend on the click."""
    theirs = deepcopy(reference)
    with torch.no_grad():
        for name, parameter in theirs.mask_decoder.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(3)
        # About 0.5 for each of the four masks.
        bias = theirs.mask_decoder.iou_prediction_head.layers[-1].bias
        bias.add_(torch.tensor([0.0, 0.5, 1.3, 0.75]))
    ours = deepcopy(sam)
    ours.load_state_dict(theirs.state_dict())
    # So high that little of the image is above it.
    ours.mask_threshold = theirs.mask_threshold = 1.6
    return ours, theirs


def masks_of(segmenter: Segmenter, image: np.ndarray, config: EverythingConfig) -> Result:
    """What everything mode finds, in the order of the combined score."""
    return rank(segment_everything(segmenter, image, config), RankingConfig())


def generate(theirs: official.Sam, image: np.ndarray, config: EverythingConfig) -> list[Any]:
    """The official masks, none of them empty, in the order of the combined score."""
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    records = SamAutomaticMaskGenerator(theirs, **fields).generate(image)
    records = [record for record in records if record["area"]]
    scores = combined_score(
        [record["predicted_iou"] for record in records],
        [record["stability_score"] for record in records],
        np.ones(len(records)),
    )
    return [records[i] for i in np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_those_of_the_official_generator(pair, photo, name):
    ours, theirs = pair
    image, config = photo(SIZE), CONFIGS[name]
    expected = generate(theirs, image, config)
    result = masks_of(Segmenter(ours), image, config)
    assert len(result) == len(expected) >= (1 if name == "huge-regions" else 3)
    for i, record in enumerate(expected):
        # Rounding may only decide where a logit is at the threshold but for rounding.
        assert np.mean(result.masks[i] != record["segmentation"]) < 1e-4
    np.testing.assert_allclose(
        result.iou_predictions, [record["predicted_iou"] for record in expected], atol=1e-4
    )
    # A pixel weighs much in the smallest masks.
    np.testing.assert_allclose(
        result.stability_scores, [record["stability_score"] for record in expected], atol=0.03
    )
    # Theirs end at their last pixel, ours one past it.
    boxes = np.array([record["bbox"] for record in expected])
    boxes[:, 2:] += boxes[:, :2] + 1
    np.testing.assert_allclose(result.boxes_xyxy, boxes, atol=1)
    assert set(result.labels) == {"mask"}
    assert (result.prompt_scores == 1).all()
    if config.crop_n_layers:
        found_in = {tuple(record["crop_box"]) for record in expected}
        assert len(found_in) >= 2


def test_the_small_regions_differ(pair, photo):
    """The parity of small regions above is about something."""
    segmenter, image = Segmenter(pair[0]), photo(SIZE)
    plain = masks_of(segmenter, image, CONFIGS["plain"])
    cleaned = masks_of(segmenter, image, CONFIGS["small-regions"])
    assert any(min(areas) < 150 for areas in map(region_areas, plain.masks) if len(areas) > 1)
    # Where all are small, the largest is left.
    for areas in map(region_areas, cleaned.masks):
        assert len(areas) == 1 or min(areas) >= 150


def region_areas(mask: np.ndarray) -> list[int]:
    """Pixels of each 8-connected region."""
    labels = measure.label(mask, connectivity=2)
    return np.bincount(labels.ravel())[1:].tolist()


def test_blocks_do_not_change_the_masks(pair, photo, monkeypatch):
    segmenter, image = Segmenter(pair[0]), photo(SIZE)
    expected = masks_of(segmenter, image, BASE)
    monkeypatch.setattr(upscaling, "MAX_LOGIT_PIXELS", 1)
    result = masks_of(segmenter, image, replace(BASE, points_per_batch=7))
    assert len(result) == len(expected) > 0
    assert np.mean(result.masks != expected.masks) < 1e-4
    assert [r.reason for r in result.rejected] == [r.reason for r in expected.rejected]


def test_every_candidate_is_kept_or_counted(pair, photo):
    config = CONFIGS["crops-and-small-regions"]
    result = masks_of(Segmenter(pair[0]), photo(SIZE), config)
    counts = []
    for item in result.rejected:
        reason, _, count = item.reason.rpartition(": ")
        assert reason
        assert item.label == "mask"
        assert item.mask is None
        dropped, total = count.removesuffix(" candidates").split(" of ")
        counts.append(int(dropped))
        assert int(total) == 5 * 25 * 3  # crops, points, masks
    assert len(result) + sum(counts) == 5 * 25 * 3
    assert len(counts) >= 4


def test_progress_counts_points(pair, photo):
    told: list[tuple[int, int]] = []
    config = replace(BASE, points_per_side=4, points_per_batch=10, crop_n_layers=1)
    config = replace(config, crop_n_points_downscale_factor=4)
    pipeline = Pipeline(Segmenter(pair[0]), config=PipelineConfig(everything=config))
    pipeline.everything(photo(SIZE), progress=lambda *done: told.append(done))
    assert told == [(n, 20) for n in (10, 16, 17, 18, 19, 20)]


def test_the_pipeline_uses_its_config_and_the_arguments(pair, photo):
    segmenter, image = Segmenter(pair[0]), photo(SIZE)
    pipeline = Pipeline(
        segmenter,
        config=PipelineConfig(everything=BASE, ranking=RankingConfig(stability_weight=2.0)),
    )

    def same(meant: EverythingConfig, **arguments: Any) -> None:
        result = pipeline.everything(image, **arguments)
        expected = rank(
            segment_everything(segmenter, image, meant), RankingConfig(stability_weight=2.0)
        )
        assert len(expected) > 0
        np.testing.assert_array_equal(result.masks, expected.masks)
        np.testing.assert_array_equal(result.scores, expected.scores)

    same(BASE)
    same(replace(BASE, points_per_side=5), points_per_side=5)
    same(replace(BASE, min_mask_region_area=150), min_mask_region_area=150)
    same(replace(LOOSE, points_per_side=5), config=LOOSE, points_per_side=5)
    result = pipeline.everything(image)
    assert (np.diff(result.scores) <= 0).all()
    np.testing.assert_allclose(
        result.scores, result.iou_predictions * result.stability_scores**2, rtol=1e-5
    )


def test_nothing_good_is_an_empty_result(pair, photo):
    config = replace(BASE, pred_iou_thresh=1.0)
    result = masks_of(Segmenter(pair[0]), photo(SIZE), config)
    assert len(result) == 0
    assert result.masks.shape == (0, *SIZE)
    (rejected,) = result.rejected
    assert rejected.reason == "the predicted IoU is not above 1: 192 of 192 candidates"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_images_of_a_few_pixels_work(pair, size):
    image = np.full((*size, 3), 90, np.uint8)
    config = replace(CONFIGS["deep-crops"], pred_iou_thresh=0.0, stability_score_thresh=0.0)
    result = masks_of(Segmenter(pair[0]), image, config)
    assert result.image_size == size


class OneDisc:
    """Gives every click the same three discs."""

    def __init__(self, model: Sam) -> None:
        height, width = model.mask_input_size
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        distance = ((y - height / 3) ** 2 + (x - width / 2) ** 2).sqrt()
        self.logits = 200.0 * (height / 4 - distance)

    def __call__(
        self, features: ImageFeatures, *, point_coords: Tensor, **_: object
    ) -> tuple[Tensor, Tensor]:
        count = len(point_coords)
        return self.logits.expand(count, 3, -1, -1), torch.full((count, 3), 0.9)


def test_memory_does_not_grow_with_the_points(obedient_segmenter, monkeypatch):
    model = deepcopy(obedient_segmenter.model)
    model.decode = OneDisc(model)
    segmenter = Segmenter(model)
    image = np.zeros((500, 700, 3), np.uint8)
    monkeypatch.setattr(upscaling, "MAX_LOGIT_PIXELS", 2 * 500 * 700)
    largest = 0
    upscale = model.postprocess_masks

    def watched(logits: Tensor, **sizes: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, len(logits))
        return upscale(logits, **sizes)

    model.postprocess_masks = watched

    def peak(points_per_side: int) -> int:
        config = EverythingConfig(points_per_side=points_per_side, points_per_batch=8)
        tracemalloc.start()
        try:
            result = masks_of(segmenter, image, config)
            assert len(result) == 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # what is made on the first run only
    few, many = peak(3), peak(8)
    assert largest == 2
    # 165 more candidates: as masks they would take 58 MB.
    assert many - few < 2**20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("points_per_side", 0),
        ("points_per_side", 2.5),
        ("points_per_side", True),
        ("points_per_batch", 0),
        ("pred_iou_thresh", 1.5),
        ("pred_iou_thresh", float("nan")),
        ("stability_score_thresh", -0.1),
        ("stability_score_offset", -1.0),
        ("stability_score_offset", float("inf")),
        ("box_nms_thresh", "0.7"),
        ("crop_n_layers", -1),
        ("crop_nms_thresh", 2),
        ("crop_overlap_ratio", 1.0),
        ("crop_n_points_downscale_factor", 0),
        ("min_mask_region_area", -1),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        EverythingConfig(**{field: value})


def test_layers_without_points_are_refused():
    with pytest.raises(InputError, match="crop_n_points_downscale_factor"):
        EverythingConfig(points_per_side=8, crop_n_layers=2, crop_n_points_downscale_factor=3)


def test_defaults_are_the_official_ones(pair):
    theirs = SamAutomaticMaskGenerator(pair[1])
    for name in EverythingConfig.__dataclass_fields__:
        if name != "points_per_side":  # kept there as a grid
            assert getattr(EverythingConfig(), name) == getattr(theirs, name), name
    np.testing.assert_allclose(theirs.point_grids[0], point_grid(32), atol=1e-12)


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(8, 3000), st.integers(8, 3000)),
    layers=st.integers(0, 3),
    ratio=st.floats(0, 0.9),
)
def test_crops_are_the_official_ones(size, layers, ratio):
    boxes, layer_of = amg.generate_crop_boxes(size, layers, ratio)
    expected = [
        (tuple(box), layer)
        for box, layer in zip(boxes, layer_of, strict=True)
        if box[0] < box[2] and box[1] < box[3]
    ]
    assert crop_boxes(size, layers, ratio) == expected


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 10**6),
    density=st.floats(0.02, 0.98),
    min_area=st.integers(1, 60),
)
def test_small_regions_are_the_official_ones(size, seed, density, min_area):
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    # Often not the whole image, so that the box and its surroundings matter.
    y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
    part = mask[y:, x:][: rng.integers(1, 15), : rng.integers(1, 15)]
    part[...] = rng.random(part.shape) < density
    if not mask.any():
        mask[y, x] = True
    expected, filled = amg.remove_small_regions(mask, min_area, "holes")
    expected, removed = amg.remove_small_regions(expected, min_area, "islands")
    box = tight_box(mask)
    new = remove_small_regions(mask[box[1] : box[3], box[0] : box[2]], box, size, min_area)
    assert (new is not None) == (filled or removed)
    if new is not None:
        x0, y0, x1, y1 = new[1]
        got = np.zeros(size, bool)
        got[y0:y1, x0:x1] = new[0]
        np.testing.assert_array_equal(got, expected)
        assert new[1] == tight_box(expected)
