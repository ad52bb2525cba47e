"""A process of its own, so that its peak memory is that of a few phrases, then of many.

    python memory_run.py FEW MANY [OWLV2]

prints the number of masks of FEW phrases and the highest memory so far, in bytes, and the same for
MANY. The phrases' places are made up, or found by the detector in the folder OWLV2.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import torch
from peak_memory import peak_memory

from promptseg.models.grounding.answers import HeatMap
from promptseg.models.grounding.owlv2 import create_owlv2
from promptseg.models.pocket.sam import PocketSamConfig, build_pocket_sam
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.presets.published import FROM_BOXES, detector_prompter
from promptseg.pipeline.prompters.heat_prompts import HeatPrompts
from promptseg.pipeline.prompters.text.box_prompts import BoxPromptConfig
from promptseg.pipeline.prompters.text.gate import PresenceGate
from promptseg.pipeline.prompters.text.prompter import TextPrompter

SIZE = (1080, 1920)
# That a shrunken detector knows.
WORDS = ("cat", "dog", "red", "traffic", "light", "man", "on", "the", "bike", "st")
TINY = PocketSamConfig(image_size=96, embed_dim=16, neck_depth=1, high_res_dims=(8, 4), num_heads=2)


def heat_maps(embedding: object, phrases: list[str]) -> list[HeatMap]:
    heat = np.full((24, 24), 0.01, np.float32)
    heat[2:10, 3:15] = 0.9
    return [HeatMap(phrase, heat, 0.9) for phrase in phrases]


def main() -> None:
    torch.manual_seed(0)
    model = build_pocket_sam(TINY).eval()
    model.mask_threshold = -100.0  # random weights give no mask: any pixel is one here
    segmenter = Segmenter(model)
    few, many, *folder = sys.argv[1:]
    pipeline = Pipeline(
        segmenter,
        text_prompter=TextPrompter(heat_maps, HeatPrompts(segmenter), PresenceGate()),
    )
    if folder:
        boxes = BoxPromptConfig(min_score=0.0, max_prompts=1)
        detector = detector_prompter(partial(create_owlv2, folder[0], batch_size=5), boxes)
        pipeline = Pipeline(segmenter, text_prompter=detector, config=FROM_BOXES)
    embedding = segmenter.encode_image(np.zeros((*SIZE, 3), np.uint8))
    for count in (int(few), int(many)):
        result = pipeline(
            embedding, text=[f"{WORDS[i % 10]} {WORDS[i // 10]}" for i in range(count)]
        )
        assert len(result) == count, result.rejected
        peak = peak_memory()
        sys.stdout.write(f"{len(result)} {peak}\n")


if __name__ == "__main__":
    main()
