"""Trident's refinement: masks that agree with their region stay, others give way to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptseg.models.errors import InputError
from promptseg.pipeline.agreement import AgreementConfig, decode_agreeing
from promptseg.pipeline.config import PipelineConfig
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.types import PromptSet

IMAGE = np.zeros((48, 96, 3), np.uint8)  # its mask input is 24 x 24, of which the image has 12 rows


def priors(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Logits (B, 1, 24, 24), 8 within a box in cells and -8 around it."""
    logits = np.full((len(boxes), 1, 24, 24), -8, np.float32)
    for prior, (x0, y0, x1, y1) in zip(logits, boxes, strict=True):
        prior[0, y0:y1, x0:x1] = 8
    return logits


@pytest.fixture
def decoded(obedient_segmenter, monkeypatch):
    """Answers a decoder with fixed masks and records what it was asked."""
    asked = []

    def answer(masks: np.ndarray, ious: list[float]):
        def decode(features, **prompts):
            asked.append(prompts)
            return torch.from_numpy(masks), torch.tensor(ious)[:, None]

        monkeypatch.setattr(obedient_segmenter.model, "decode", decode)
        return asked

    return answer


def prompts_of(mask_input: np.ndarray | None) -> PromptSet:
    count = 2
    return PromptSet(
        prompt_scores=np.full(count, 0.5, np.float32),
        labels=("cat",) * count,
        point_coords=np.full((count, 1, 2), 20, np.float32),
        point_labels=np.ones((count, 1), np.int64),
        boxes=np.tile(np.array([8, 8, 40, 40], np.float32), (count, 1)),
        mask_input=mask_input,
    )


def test_a_mask_stays_where_it_agrees_with_its_region(obedient_segmenter, decoded) -> None:
    regions = priors((2, 2, 12, 10), (2, 2, 12, 10))  # 80 cells
    # 72 of the 80: IoU 0.9; 60 of the 80: IoU 0.75. What lies below the image does not count.
    masks = priors((3, 2, 12, 10), (2, 2, 12, 8))
    masks[:, :, 12:] = 8
    asked = decoded(masks, [0.8, 0.6])
    embedding = obedient_segmenter.encode_image(IMAGE)
    found = decode_agreeing(obedient_segmenter, embedding, prompts_of(regions), AgreementConfig())
    np.testing.assert_array_equal(found.logits[0], masks[0])
    np.testing.assert_allclose(found.logits[1], regions[1], atol=1e-3)
    np.testing.assert_allclose(found.iou_predictions, [[0.8], [0.6 * 0.75]], rtol=1e-6)
    (call,) = asked
    np.testing.assert_allclose(call["mask_input"].numpy(), regions * 0.005, rtol=1e-6)
    assert call["point_coords"].shape == (2, 1, 2)
    assert call["boxes"].shape == (2, 4)
    assert not call["multimask_output"]


def test_the_least_agreement_is_the_configs(obedient_segmenter, decoded) -> None:
    regions = priors((2, 2, 12, 10), (2, 2, 12, 10))
    masks = priors((3, 2, 12, 10), (2, 2, 12, 8))
    decoded(masks, [0.8, 0.6])
    embedding = obedient_segmenter.encode_image(IMAGE)
    config = AgreementConfig(min_iou=0.7)
    found = decode_agreeing(obedient_segmenter, embedding, prompts_of(regions), config)
    np.testing.assert_array_equal(found.logits, masks)


def test_an_empty_mask_gives_way_to_the_region(obedient_segmenter, decoded) -> None:
    regions = priors((2, 2, 12, 10), (2, 2, 12, 10))
    decoded(np.full((2, 1, 24, 24), -8, np.float32), [0.5, 0.5])
    embedding = obedient_segmenter.encode_image(IMAGE)
    found = decode_agreeing(obedient_segmenter, embedding, prompts_of(regions), AgreementConfig())
    np.testing.assert_array_equal(found.logits > 0, regions > 0)
    np.testing.assert_array_equal(found.iou_predictions, [[0], [0]])


def test_of_a_faint_prior_the_region_is_what_reaches_a_share_of_its_peak(
    obedient_segmenter, decoded
) -> None:
    heat = np.full((2, 1, 24, 24), 0.05)
    heat[:, 0, 2:10, 2:12] = 0.29  # above 0.7 of the highest
    heat[:, 0, 2:10, 12:16] = 0.27  # below it
    heat[:, 0, 4, 4] = 0.4
    faint = np.log(heat / (1 - heat)).astype(np.float32)
    decoded(np.full((2, 1, 24, 24), -8, np.float32), [0.5, 0.5])
    embedding = obedient_segmenter.encode_image(IMAGE)
    found = decode_agreeing(obedient_segmenter, embedding, prompts_of(faint), AgreementConfig())
    np.testing.assert_array_equal(found.logits > 0, priors((2, 2, 12, 10), (2, 2, 12, 10)) > 0)


def test_prompts_without_a_region_are_refused(obedient_segmenter) -> None:
    embedding = obedient_segmenter.encode_image(IMAGE)
    with pytest.raises(InputError, match="mask priors"):
        decode_agreeing(obedient_segmenter, embedding, prompts_of(None), AgreementConfig())


def test_the_pipeline_decodes_that_way_if_told(
    obedient_segmenter, make_grounder, monkeypatch
) -> None:
    decodings = []
    decode = obedient_segmenter.decode_low_res

    def counted(*arguments, **prompts):
        decodings.append(prompts["multimask_output"])
        return decode(*arguments, **prompts)

    monkeypatch.setattr(obedient_segmenter, "decode_low_res", counted)
    heat = np.full((12, 24), 0.02, np.float32)
    heat[3:9, 4:16] = 0.9
    config = PipelineConfig(agreement=AgreementConfig())
    prompter = make_grounder({"cat": heat}).prompter(obedient_segmenter)
    result = Pipeline(obedient_segmenter, text_prompter=prompter, config=config)(IMAGE, text="cat")
    expected = np.zeros((48, 96), bool)
    expected[12:36, 16:64] = True
    (mask,) = result.masks
    # A cell of the mask input is 4 pixels wide, and its corners are rounded.
    assert (mask & expected).sum() / (mask | expected).sum() > 0.85
    assert decodings == [False]


@pytest.mark.parametrize(
    "change", [{"logit_scale": 0.0}, {"min_iou": 1.1}, {"level": 1.0}, {"peak_share": 0.0}]
)
def test_values_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        AgreementConfig(**change)
