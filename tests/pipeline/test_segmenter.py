"""The segmenter: the official predictor's pixels, blocks of bounded memory, checked prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.utils.amg import calculate_stability_score
from skimage import data

from promptseg.models import InputError, create_model, registry
from promptseg.models.embedding import ImageFeatures
from promptseg.models.pocket.sam import PocketSamConfig, build_pocket_sam
from promptseg.models.preprocess import longest_side_size
from promptseg.models.sam.build import build_sam_tiny_vit
from promptseg.models.sam.sam import PromptableModel
from promptseg.pipeline import Segmenter
from promptseg.pipeline.decoding import upscaling
from promptseg.pipeline.decoding.prompts import LowResMasks
from promptseg.pipeline.decoding.upscaling import stability_score

from ..shrunken import SHRUNKEN_TINY_VIT, SHRUNKEN_VITS, build_pair, randomise

WEIGHTS = Path(registry.__file__).parent / "weights"
SMALL_POCKET = PocketSamConfig(image_size=96, embed_dim=32, num_heads=2)
SIZES = [(128, 128), (90, 200), (333, 77), (40, 41), (129, 128)]


def prompts_for(size: tuple[int, int], count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    wh = np.array(size[::-1])
    corners = np.sort(rng.random((count, 2, 2)), axis=1) * wh
    return {
        "point_coords": rng.random((count, 3, 2)) * wh,
        "point_labels": np.tile([1, 0, 1], (count, 1)),
        "boxes": corners.reshape(count, 4),
    }


@pytest.mark.parametrize("size", SIZES)
def test_model_input_is_the_official_one_to_the_pixel(sam, reference, photo, size):
    predictor = SamPredictor(reference)
    image = photo(size)
    resized = predictor.transform.apply_image(image)
    expected = reference.preprocess(torch.as_tensor(resized).permute(2, 0, 1)[None])
    pixel_values, input_size = sam.preprocess(image)
    assert input_size == resized.shape[:2]
    assert torch.equal(pixel_values, expected)


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_masks_are_the_official_ones_to_the_pixel(sam, reference, photo, size, multimask_output):
    image, prompts = photo(size), prompts_for(size, 1)
    predictor = SamPredictor(reference)
    predictor.set_image(image)
    logits, ious, low_res = predictor.predict(
        prompts["point_coords"][0],
        prompts["point_labels"][0],
        box=prompts["boxes"][0],
        multimask_output=multimask_output,
        return_logits=True,
    )
    ours = Segmenter(sam)
    embedding = ours.encode_image(image)
    candidates = ours.decode(embedding, **prompts, multimask_output=multimask_output)
    assert embedding.original_size == size
    np.testing.assert_allclose(candidates.low_res_logits[0], low_res, atol=1e-4)
    np.testing.assert_allclose(candidates.iou_predictions[0], ious, atol=1e-4)
    assert candidates.masks.shape == (1, 3 if multimask_output else 1, *size)
    # Rounding may only decide where a logit is zero but for rounding.
    clear = np.abs(logits) > 1e-4
    assert np.array_equal(candidates.masks[0][clear], (logits > 0)[clear])
    assert clear.mean() > 0.99
    assert 0 < candidates.masks.mean() < 1
    expected = calculate_stability_score(torch.from_numpy(logits), 0.0, 1.0)
    np.testing.assert_allclose(candidates.stability_scores[0], expected, atol=2e-3)


def test_a_decoded_mask_refines_itself(sam, reference, photo):
    image, prompts = photo((90, 200)), prompts_for((90, 200), 1)
    predictor = SamPredictor(reference)
    predictor.set_image(image)
    _, _, first = predictor.predict(box=prompts["boxes"][0], multimask_output=False)
    _, ious, low_res = predictor.predict(
        box=prompts["boxes"][0], mask_input=first, multimask_output=False
    )
    ours = Segmenter(sam)
    embedding = ours.encode_image(image)
    start = ours.decode(embedding, boxes=prompts["boxes"], multimask_output=False)
    refined = ours.decode(
        embedding,
        boxes=prompts["boxes"],
        mask_input=start.low_res_logits,
        multimask_output=False,
    )
    np.testing.assert_allclose(refined.low_res_logits[0], low_res, atol=1e-4)
    np.testing.assert_allclose(refined.iou_predictions[0], ious, atol=1e-4)
    assert not np.allclose(refined.low_res_logits, start.low_res_logits, atol=1e-2)


def test_padding_points_change_nothing_but_the_token_they_are(sam, photo):
    """A box with padding points equals the official padding; their place does not matter."""
    ours = Segmenter(sam)
    embedding = ours.encode_image(photo((60, 100)))
    here, there = (
        ours.decode(
            embedding,
            point_coords=[[[10, 20], place]],
            point_labels=[[1, -1]],
            multimask_output=False,
        )
        for place in ([0, 0], [5000, -3])
    )
    assert np.array_equal(here.low_res_logits, there.low_res_logits)


@pytest.mark.parametrize(("batch_size", "max_pixels"), [(1, 1), (2, 10**5), (7, 10**9)])
def test_blocks_do_not_change_results(sam, photo, monkeypatch, batch_size, max_pixels):
    size = (90, 200)
    embedding = Segmenter(sam).encode_image(photo(size))
    prompts = prompts_for(size, 7)
    whole = Segmenter(sam).decode(embedding, **prompts)
    monkeypatch.setattr(upscaling, "MAX_LOGIT_PIXELS", max_pixels)
    blocks = Segmenter(sam, batch_size=batch_size).decode(embedding, **prompts)
    np.testing.assert_allclose(blocks.low_res_logits, whole.low_res_logits, atol=1e-4)
    np.testing.assert_allclose(blocks.iou_predictions, whole.iou_predictions, atol=1e-5)
    np.testing.assert_allclose(blocks.stability_scores, whole.stability_scores, atol=2e-3)
    assert (blocks.masks != whole.masks).mean() < 1e-3


def test_full_size_logits_are_held_for_few_masks_at_a_time(sam, photo, monkeypatch):
    held = []
    original = torch.nn.functional.interpolate

    def spy(x, size, **options):
        held.append(x.shape[0] * size[0] * size[1])
        return original(x, size, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", spy)
    monkeypatch.setattr(upscaling, "MAX_LOGIT_PIXELS", 10**5)
    ours = Segmenter(sam)
    ours.decode(ours.encode_image(photo((100, 300))), **prompts_for((100, 300), 5))
    assert max(held) <= 10**5
    assert len(held) == 2 * 5  # 15 masks, 3 of 30,000 pixels at a time, upscaled in two steps


def test_ten_thousand_pixels_wide(sam):
    image = np.zeros((20, 10_000, 3), np.uint8)
    image[:, 5000:] = 255
    ours = Segmenter(sam)
    embedding = ours.encode_image(image)
    assert embedding.input_size == (1, 128)  # official rounding gives no row at all
    candidates = ours.decode(embedding, boxes=[[100, 2, 9000, 18]])
    assert candidates.masks.shape == (1, 3, 20, 10_000)


@pytest.mark.parametrize("size", [(1, 1), (1, 50)])
def test_smallest_images(sam, size):
    ours = Segmenter(sam)
    embedding = ours.encode_image(np.full((*size, 3), 9, np.uint8))
    candidates = ours.decode(embedding, point_coords=[[[0, 0]]], point_labels=[[1]])
    assert candidates.masks.shape == (1, 3, *size)
    assert np.isfinite(candidates.iou_predictions).all()


@given(size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), long_side=st.integers(1, 2048))
@settings(max_examples=200, deadline=None)
def test_resized_size_is_the_official_one(size, long_side):
    from segment_anything.utils.transforms import ResizeLongestSide

    expected = ResizeLongestSide.get_preprocess_shape(*size, long_side)
    assert longest_side_size(size, long_side) == tuple(max(1, side) for side in expected)


def test_inputs_of_every_type_agree(sam, photo, tmp_path):
    ours = Segmenter(sam)
    image = photo((60, 100))
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    prompts = prompts_for((60, 100), 2)
    expected = ours.decode(ours.encode_image(image), **prompts)
    for source in (path, str(path), Image.open(path)):
        for convert in (np.ndarray.tolist, torch.from_numpy):
            given_prompts = {name: convert(array) for name, array in prompts.items()}
            candidates = ours.decode(ours.encode_image(source), **given_prompts)
            assert np.array_equal(candidates.low_res_logits, expected.low_res_logits)


def test_no_prompts_give_no_candidates(sam, photo):
    ours = Segmenter(sam)
    candidates = ours.decode(ours.encode_image(photo((60, 100))), boxes=np.zeros((0, 4)))
    assert candidates.masks.shape == (0, 3, 60, 100)
    assert candidates.low_res_logits.shape == (0, 3, 32, 32)
    assert candidates.iou_predictions.shape == candidates.stability_scores.shape == (0, 3)


def test_types_of_the_outputs(sam, photo):
    ours = Segmenter(sam, model_id="shrunken")
    image = photo((60, 100))
    embedding = ours.encode_image(image)
    assert embedding.model_id == "shrunken"
    assert np.array_equal(embedding.image, image)
    with pytest.raises(ValueError, match="read-only"):
        embedding.image[0, 0] = 0
    image[0, 0] = 0  # the caller's own array stays writable
    candidates = ours.decode(embedding, boxes=[[1, 2, 30, 40]])
    assert candidates.masks.dtype == np.bool_
    scores = (candidates.iou_predictions, candidates.low_res_logits, candidates.stability_scores)
    assert {array.dtype for array in scores} == {np.dtype(np.float32)}


def test_stability_score_of_a_worked_example():
    logits = torch.tensor([[[2.0, 0.5, -0.5, -3.0]], [[-9.0, -9.0, -9.0, -9.0]]])
    # Above 1: one pixel; above -1: three. Nothing at all is not stable, and not NaN.
    assert stability_score(logits).tolist() == pytest.approx([1 / 3, 0.0])
    assert stability_score(logits, mask_threshold=-1.5).tolist() == pytest.approx([2 / 3, 0.0])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "nothing to segment: give points, boxes or mask_input"),
        ({"point_coords": [[[1, 2]]]}, "point_coords and point_labels come together"),
        ({"point_labels": [[1]]}, "point_coords and point_labels come together"),
        (
            {"point_coords": [[1, 2]], "point_labels": [1]},
            r"point_coords must have shape \(any, any, 2\), got \(1, 2\); the first dimension",
        ),
        (
            {"point_coords": [[[1, 2]]], "point_labels": [[1, 0]]},
            r"point_labels must have shape \(1, 1\), got \(1, 2\)",
        ),
        (
            {"point_coords": [[[1, float("nan")]]], "point_labels": [[1]]},
            "point_coords must be finite",
        ),
        (
            {"point_coords": [[[1, 2]]], "point_labels": [[2]]},
            r"a point label is 1 \(foreground\), 0 \(background\) or -1 \(padding\), got 2",
        ),
        (
            {"point_coords": [[[101, 2]]], "point_labels": [[1]]},
            r"the point \(101, 2\) lies outside the image of 100 x 60 pixels",
        ),
        ({"boxes": [1, 2, 3, 4]}, r"boxes must have shape \(any, 4\), got \(4,\); the first"),
        ({"boxes": [[30, 2, 3, 4]]}, r"corners in the wrong order; give x0 <= x1, y0 <= y1"),
        ({"boxes": [[200, 2, 300, 4]]}, r"box \(200, 2, 300, 4\) lies outside the image"),
        ({"boxes": [["a", 2, 3, 4]]}, "boxes must be an array of numbers"),
        ({"boxes": [[1, 2, float("inf"), 4]]}, "boxes must be finite"),
        ({"mask_input": np.zeros((1, 32, 32))}, r"mask_input must have shape \(any, 1, 32, 32\)"),
        (
            {"boxes": np.ones((2, 4)), "mask_input": np.zeros((3, 1, 32, 32))},
            "the same number of prompts, got 2 in boxes, 3 in mask_input",
        ),
    ],
)
def test_bad_prompts(sam, photo, prompts, message):
    ours = Segmenter(sam)
    embedding = ours.encode_image(photo((60, 100)))
    with pytest.raises(InputError, match=message) as caught:
        ours.decode(embedding, **prompts)
    assert "\n" not in str(caught.value)


def test_a_box_reaching_over_the_border_is_fine(sam, photo):
    ours = Segmenter(sam)
    embedding = ours.encode_image(photo((60, 100)))
    assert ours.decode(embedding, boxes=[[-5, -5, 300, 300]]).masks.any()


def test_bad_images_and_settings(sam, photo):
    with pytest.raises(InputError, match="must be uint8"):
        Segmenter(sam).encode_image(photo((6, 6)).astype(np.float32))
    with pytest.raises(InputError, match="batch_size must be 1 or more, got 0"):
        Segmenter(sam, batch_size=0)
    embedding = Segmenter(sam, model_id="one").encode_image(photo((6, 6)))
    with pytest.raises(InputError, match="made by 'one', this segmenter runs 'other'"):
        Segmenter(sam, model_id="other").decode(embedding, boxes=[[1, 1, 2, 2]])


@pytest.mark.parametrize("size", [(90, 200), (200, 90), (7, 64)])
def test_a_model_that_is_not_padded_to_a_square(photo, size):
    torch.manual_seed(0)
    pocket = build_pocket_sam(PocketSamConfig(image_size=128, embed_dim=32, num_heads=2))
    ours = Segmenter(pocket)
    pixel_values, input_size = pocket.preprocess(photo(size))
    assert all(side % 32 == 0 for side in pixel_values.shape[-2:])
    assert min(pixel_values.shape[-2:]) < 128
    candidates = ours.decode(ours.encode_image(photo(size)), **prompts_for(size, 2))
    assert candidates.masks.shape == (2, 3, *size)
    assert max(input_size) == 128


def union_of(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two stacks of masks, each taken as one."""
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize(("dtype", "least"), [("bf16", 0.97), ("fp16", 0.995)])
def test_half_precision_gives_nearly_the_same_masks(sam, photo, dtype, least):
    image, prompts = photo((90, 200)), prompts_for((90, 200), 3)
    full, half = (
        ours.decode(ours.encode_image(image), **prompts)
        for ours in (Segmenter(sam), Segmenter(sam, dtype=dtype))
    )
    assert union_of(full.masks, half.masks) > least
    np.testing.assert_allclose(half.iou_predictions, full.iou_predictions, atol=0.05)
    scores = (half.iou_predictions, half.low_res_logits, half.stability_scores)
    assert {array.dtype for array in scores} == {np.dtype(np.float32)}
    # It was really run in fewer bits.
    assert not np.array_equal(half.low_res_logits, full.low_res_logits)


def test_half_precision_of_the_shipped_pocket():
    """On a narrow strip of a photograph, since CPUs may be slow at it."""
    pocket = create_model("sam_pocket", checkpoint=WEIGHTS / "sam_pocket.safetensors")
    strip = data.chelsea()[110:170, :450]
    prompts = {"point_coords": [[[205, 20]], [[60, 30]]], "point_labels": [[1], [1]]}
    full, half = (
        ours.decode(ours.encode_image(strip), **prompts)
        for ours in (Segmenter(pocket), Segmenter(pocket, dtype="bf16"))
    )
    assert 0.01 < full.masks.mean() < 0.9
    assert union_of(full.masks, half.masks) > 0.95
    np.testing.assert_allclose(half.iou_predictions, full.iou_predictions, atol=0.05)


def test_half_precision_stays_inside_the_calls(photo):
    """Embeddings are float32, weights stay as they are, and nothing is set outside."""
    torch.manual_seed(0)
    pocket = build_pocket_sam(SMALL_POCKET)
    weights = {name: x.clone() for name, x in pocket.state_dict().items()}
    seen = []
    pocket.mask_decoder.iou_prediction_head.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    ours = Segmenter(pocket, dtype=torch.bfloat16)
    embedding = ours.encode_image(photo((60, 96)))
    maps = embedding.features
    ours.decode(embedding, boxes=[[5, 5, 40, 50]])
    assert set(seen) == {torch.bfloat16}
    for tensor in (maps.image_embeddings, *maps.high_res_features, *maps.backbone_features):
        assert tensor.dtype == torch.float32
    assert all(torch.equal(x, weights[name]) for name, x in pocket.state_dict().items())
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("build", "bytes_each"),
    [
        (lambda: build_pair(SHRUNKEN_VITS["padded-windows"]).ours, (2.0, 3.0)),
        (lambda: build_sam_tiny_vit(SHRUNKEN_TINY_VIT), (2.0, 3.0)),
        (lambda: build_pocket_sam(SMALL_POCKET), (4.0, 4.0)),
    ],
    ids=["vit", "tiny-vit", "pocket"],
)
def test_weights_cast_once_give_the_same(photo, build, bytes_each):
    """In less memory, but for pocket, whose early stages compute in float32."""
    model = build()
    randomise(model, seed=1)

    def decoded(ours):
        return ours.decode_low_res(ours.encode_image(photo((60, 96))), boxes=[[5, 5, 40, 50]])

    expected = decoded(Segmenter(model, dtype="bf16"))
    found = decoded(Segmenter(model, dtype="bf16", cast_weights=True))
    assert np.ptp(found.logits) > 0
    assert np.array_equal(found.logits, expected.logits)
    assert np.array_equal(found.iou_predictions, expected.iou_predictions)
    weights = list(model.image_encoder.parameters())
    size = sum(x.numel() * x.element_size() for x in weights) / sum(x.numel() for x in weights)
    least, most = bytes_each
    assert least <= size <= most


def test_a_cast_model_is_of_no_use_in_another_precision():
    model = build_pair(SHRUNKEN_VITS["padded-windows"]).ours
    Segmenter(model, dtype="bf16", cast_weights=True)
    with pytest.raises(InputError, match="weights are bfloat16"):
        Segmenter(model, dtype="fp32")


@pytest.mark.parametrize("dtype", ["fp64", torch.float64, "double"])
def test_unknown_dtype(sam, dtype):
    with pytest.raises(InputError, match=r"no dtype .* to run in; use auto, fp32, bf16 or fp16"):
        Segmenter(sam, dtype=dtype)


def test_a_device_that_cannot_do_a_dtype_is_refused_at_once(photo):
    model = build_pocket_sam(PocketSamConfig(image_size=96, embed_dim=32, num_heads=2)).to("meta")
    with pytest.raises(InputError, match="cannot run networks in bfloat16 on meta"):
        Segmenter(model, dtype="bf16")


def test_any_model_of_the_interface_will_do(photo):
    """The pipeline asks for nothing that the interface does not have."""

    class Halves:
        """Two masks for each prompt: the left and the upper half of its own frame, 40 x 40."""

        model_id = "halves"
        device = torch.device("cpu")
        image_size = 40
        mask_input_size = (10, 10)
        mask_threshold = 0.5
        num_multimask_outputs = 2

        def eval(self) -> Halves:
            return self

        def preprocess(self, image: np.ndarray) -> tuple[torch.Tensor, tuple[int, int]]:
            return torch.zeros(1, 3, 40, 40), (40, 40)

        def encode_image(self, pixel_values: torch.Tensor) -> ImageFeatures:
            return ImageFeatures(pixel_values)

        def decode(self, features, *, boxes, multimask_output, **_):
            self.boxes = boxes
            logits = torch.zeros(len(boxes), 2, 10, 10)
            logits[:, 0, :, :5] = logits[:, 1, :5] = 1
            return logits[:, : 1 + multimask_output], torch.ones(len(boxes), 1 + multimask_output)

        def postprocess_masks(self, logits, *, input_size, original_size, columns=None):
            return torch.nn.functional.interpolate(logits, original_size)

    model: PromptableModel = Halves()
    ours = Segmenter(model)
    embedding = ours.encode_image(photo((80, 20)))
    candidates = ours.decode(embedding, boxes=[[5, 8, 20, 60]])
    assert model.boxes.tolist() == [[10, 4, 40, 30]]  # each axis has its own scale
    assert candidates.masks.shape == (1, 2, 80, 20)
    assert candidates.masks[0, 0].all(0).tolist() == [True] * 10 + [False] * 10
    assert candidates.masks[0, 1].all(1).tolist() == [True] * 40 + [False] * 40
    low_res = ours.decode_low_res(embedding, boxes=[[5, 8, 20, 60]], multimask_output=False)
    assert ours.low_res_boxes(embedding, low_res).tolist() == [[0, 0, 10, 80]]
    assert ours.to_mask_input(np.ones((1, 4, 4), np.float32), embedding).shape == (1, 1, 10, 10)


@pytest.mark.parametrize("size", [(90, 200), (333, 77), (57, 1581), (40, 41)])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 100.0])
def test_masks_upscaled_in_columns_are_the_whole_ones(sam, photo, monkeypatch, size, threshold):
    """Rounding may only decide where a logit is at the threshold but for rounding."""
    monkeypatch.setattr(sam, "mask_threshold", threshold)
    ours = Segmenter(sam)
    embedding = ours.encode_image(photo(size))
    low_res = ours.decode_low_res(embedding, **prompts_for(size, 4))
    logits = low_res.logits.reshape(-1, *low_res.logits.shape[-2:]) * np.float32(3)
    whole = list(ours.upscale_compact(embedding, logits, stability_offset=0.3))
    expected = ours.upscale(
        embedding, LowResMasks(logits[:, None], logits[:, 0, :1]), stability_offset=0.3
    )
    for i, (mask, stability) in enumerate(whole):
        np.testing.assert_array_equal(mask.full(), expected.masks[i, 0])
        assert stability == expected.stability_scores[i, 0]
    assert any(mask.area for mask, _ in whole) == (threshold < 100)
    monkeypatch.setattr(upscaling, "_WHOLE_PIXELS", 0)
    monkeypatch.setattr(upscaling, "MAX_LOGIT_PIXELS", 30 * size[0])
    for (mask, stability), (parts, score) in zip(
        whole, ours.upscale_compact(embedding, logits, stability_offset=0.3), strict=True
    ):
        assert np.count_nonzero(mask.full() ^ parts.full()) <= 1
        assert score == pytest.approx(stability, abs=1e-3)


def test_unstable_masks_keep_their_score_alone(sam, photo):
    ours = Segmenter(sam)
    embedding = ours.encode_image(photo((90, 200)))
    low_res = ours.decode_low_res(embedding, **prompts_for((90, 200), 6))
    logits = low_res.logits.reshape(-1, *low_res.logits.shape[-2:])
    every = list(ours.upscale_compact(embedding, logits, stability_offset=0.3))
    least = float(np.median([stability for _, stability in every]))
    some = ours.upscale_compact(embedding, logits, stability_offset=0.3, min_stability=least)
    left_out = 0
    for (mask, stability), (found, score) in zip(every, some, strict=True):
        assert score == stability
        assert found == mask if stability >= np.float32(least) else found.area == 0
        left_out += mask.area > 0 and found.area == 0
    assert left_out > 0


def test_only_reached_columns_are_upscaled(sam, photo, monkeypatch):
    monkeypatch.setattr(upscaling, "_WHOLE_PIXELS", 0)
    asked = []
    original = sam.postprocess_masks

    def spy(logits, *, columns, **sizes):
        asked.append(columns)
        return original(logits, columns=columns, **sizes)

    monkeypatch.setattr(sam, "postprocess_masks", spy)
    ours = Segmenter(sam)
    embedding = ours.encode_image(photo((200, 400)))
    logits = np.full((2, 32, 32), -9, np.float32)
    logits[0, 4:8, 16:18] = 9  # 12.5 pixels a cell
    (one, stability), (nothing, none) = ours.upscale_compact(embedding, logits)
    assert asked == [(175, 250)]
    assert one.box[0] >= 187
    assert one.box[2] <= 238
    assert one.area > 0
    assert 0 < stability <= 1
    assert (nothing.area, none) == (0, 0)
