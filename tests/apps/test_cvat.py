"""The functions for CVAT, loaded and checked by CVAT's own packages."""

from __future__ import annotations

import argparse
import inspect
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from cvat_cli._internal.agent_driver_interaction import AgentInteractionFunctionDriver
from cvat_cli._internal.commands_all import COMMANDS
from cvat_cli._internal.common import FunctionLoader, configure_common_arguments
from cvat_sdk import auto_annotation as cvataa
from cvat_sdk import models
from cvat_sdk.auto_annotation.driver import _AnnotationMapper, _DetectionFunctionContextImpl
from cvat_sdk.masks import decode_mask
from PIL import Image
from pycocotools import mask as coco_mask

import promptseg
from promptseg.apps import cvat
from promptseg.models.errors import InputError

EXAMPLES = Path(__file__).resolve().parents[2] / "apps" / "web" / "examples"


@pytest.fixture(autouse=True)
def loaded(pipe: promptseg.Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Load the preset once; keep what was asked for."""
    asked: list[dict[str, Any]] = []

    def load(preset: str, **options: Any) -> promptseg.Pipeline:
        asked.append({"preset": preset, **options})
        return pipe

    monkeypatch.setattr(cvat, "load", load)
    return asked


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    return Image.open(EXAMPLES / "cat.jpg")


def function(**parameters: object) -> Any:
    """The function as `cvat-cli --function-module promptseg.apps.cvat -p ...` loads it."""
    return FunctionLoader("promptseg.apps.cvat", None, parameters).load()


def annotate(
    made: Any, image: Image.Image, *, names: tuple[str, ...] = ("cat", "unicorn"), **context: Any
) -> list[models.LabeledShapeRequest]:
    """Annotate a frame as CVAT's driver does, whose checks raise; labels of the task: 70, 71 ..."""
    kind = "polygon" if context.get("conv_mask_to_poly") else "mask"
    task = [
        models.Label(name=name, id=70 + i, type=kind, attributes=[], sublabels=[])
        for i, name in enumerate(names)
    ]
    mapper = _AnnotationMapper(
        logging.getLogger(),
        made.spec.labels,
        task,
        allow_unmatched_labels=False,
        conv_mask_to_poly=context.get("conv_mask_to_poly", False),
    )
    context = {"frame_name": "set/cat.jpg", **context}
    found = made.detect(_DetectionFunctionContextImpl(**context), image)
    tags, shapes = mapper.validate_and_remap(found, 5)
    assert tags == []
    return shapes


def decoded(points: list[float], image: Image.Image) -> np.ndarray:
    return decode_mask(points, image_width=image.width, image_height=image.height)


def test_masks_are_those_of_python(pipe: promptseg.Pipeline, cat: Image.Image) -> None:
    shapes = annotate(function(labels="cat, unicorn"), cat)
    expected = pipe(cat, ["cat", "unicorn"])
    assert [shape.label_id for shape in shapes] == [70]
    assert (shapes[0].frame, shapes[0].type.value) == (5, "mask")
    assert np.array_equal(decoded(shapes[0].points, cat), expected.masks[0])


def test_polygons_fill_to_the_mask(pipe: promptseg.Pipeline, cat: Image.Image) -> None:
    shapes = annotate(function(labels="cat,unicorn"), cat, conv_mask_to_poly=True)
    assert {shape.type.value for shape in shapes} == {"polygon"}
    polygons = [shape.points for shape in shapes]
    filled = coco_mask.decode(
        coco_mask.merge(coco_mask.frPyObjects(polygons, cat.height, cat.width))
    )
    assert np.array_equal(filled.astype(bool), pipe(cat, "cat").masks[0])
    fewer = annotate(function(labels="cat,unicorn", simplify=2.0), cat, conv_mask_to_poly=True)
    assert len(fewer[0].points) < len(polygons[0]) / 3


def test_parts_of_a_mask_are_a_group_of_polygons(pipe: promptseg.Pipeline) -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[2:6, 2:6] = mask[10:18, 12:25] = True
    detector = cvat.Detector(pipe, ["it"])
    shapes = detector._polygons(0, promptseg.Result.of(
        mask[None], ["it"], [1.0], [1.0], [1.0], [1.0]
    ).compact_masks[0], 3)  # fmt: skip
    assert [(shape.group, len(shape.points)) for shape in shapes] == [(3, 8), (3, 8)]


def test_nothing_here_and_thresholds(pipe: promptseg.Pipeline, cat: Image.Image) -> None:
    assert annotate(function(labels="unicorn"), cat, names=("unicorn",)) == []
    score = float(pipe(cat, "cat").scores[0])
    for threshold, count in ((score - 0.01, 1), (score + 0.01, 0)):
        assert len(annotate(function(labels="cat,unicorn"), cat, conf_threshold=threshold)) == count
    # CVAT's threshold goes before one's own.
    strict = function(labels="cat,unicorn", min_score=score + 0.01)
    assert len(annotate(strict, cat)) == 0
    assert len(annotate(strict, cat, conf_threshold=0.0)) >= 1
    assert annotate(function(labels="dog", min_presence=0.0), cat, names=("dog",))


def test_errors_name_the_frame_and_the_remedy(cat: Image.Image) -> None:
    with pytest.raises(InputError, match=r"^set/cat.jpg: .*no pixels"):
        annotate(function(labels="cat,unicorn"), Image.new("RGB", (0, 5)))
    for parameters in ({}, {"labels": "cat", "clicks": True}, {"labels": " ,"}):
        with pytest.raises(InputError, match="-p labels=str:cat,dog, or answer clicks"):
            function(**parameters)


def test_the_commands_of_the_page_are_understood() -> None:
    """docs/cvat.md: CVAT's own parser reads each command, whose parameters `create` takes."""
    page = (EXAMPLES.parents[2] / "docs" / "cvat.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ {4}cvat-cli (.*)$", page.replace("\\\n", " "), re.MULTILINE)
    assert len(commands) == 3
    parser = argparse.ArgumentParser()
    configure_common_arguments(parser)
    COMMANDS.configure_parser(parser)
    taken = set(inspect.signature(cvat.create).parameters)
    for command in commands:
        parsed = parser.parse_args(shlex.split(command))
        assert parsed.function_module == "promptseg.apps.cvat"
        assert set(parsed.function_parameters) <= taken
    assert set(re.findall(r"`-p (\w+)=", page)) == taken - {"clicks"}


def test_options_reach_the_preset(loaded: list[dict[str, Any]]) -> None:
    function(labels="cat", preset="base", device="cuda", weights="w")
    assert loaded == [{"preset": "base", "device": "cuda", "weights": "w"}]


@attrs.frozen
class Prompts(cvataa.InteractionPrompts):
    pos_points: tuple = ()
    neg_points: tuple = ()
    bounding_box: tuple | None = None


class Context(cvataa.InteractionFunctionContext):
    """CVAT's, which is empty."""


def test_clicks_and_boxes(pipe: promptseg.Pipeline, cat: Image.Image) -> None:
    clicker = function(clicks=True)
    embedding = clicker.preprocess_image(Context(), cat)
    for prompts, query in (
        (Prompts(((200.0, 150.0),)), {"points": [(200, 150)]}),
        (
            Prompts(((200.0, 150.0),), ((5.0, 5.0),)),
            {"points": [(200, 150), (5, 5)], "point_labels": [1, 0]},
        ),
        # Beyond the image's rim, corners in any order.
        (Prompts(bounding_box=((500.0, 310.0), (50.0, -3.0))), {"boxes": [(50, 0, 451, 300)]}),
    ):
        (shape,) = clicker.detect(Context(), embedding, prompts)
        expected = pipe(embedding, **query, top_k=1)
        assert shape.type == "mask"
        assert np.array_equal(decoded(shape.points, cat), expected.masks[0])
        (confidence,) = shape.attributes
        assert float(confidence.value) == pytest.approx(expected.scores[0], abs=1e-4)
    assert clicker.detect(Context(), embedding, Prompts(neg_points=((5.0, 5.0),))) == []


def test_an_agent_announces_clicks_and_optional_boxes() -> None:
    fields = AgentInteractionFunctionDriver.get_remote_function_fields(function(clicks=True).spec)
    assert fields == {"min_pos_points": 0, "min_neg_points": 0, "startswith_box_optional": True}
