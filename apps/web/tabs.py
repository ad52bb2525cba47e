"""The left half of the page: the picture and the four ways to say what is wanted in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ...pipeline.presets.catalog import PRESETS
from .actions import Draft
from .choices import describe_preset, device_choices, preset_choices
from .request import Marks, Setup
from .stage import make_stage
from .uploads import picture_upload

EXAMPLE_STAGE = "example-stage"
_EXAMPLES = Path(__file__).with_name("examples")
_PHRASES = {
    "cat.jpg": "cat, dog",
    "astronaut.jpg": "person, helmet",
    "rocket.jpg": "rocket, tower",
}
_FOREGROUND = [("Object", "foreground"), ("Background", "background"), ("Box", "box")]
_EXAMPLE_TOOLS = [("Paint", "paint"), ("Erase", "erase"), ("Click", "foreground"), ("Box", "box")]


@dataclass(frozen=True)
class TextTab:
    """Components of the text tab."""

    phrases: Any
    negatives: Any
    find: Any


@dataclass(frozen=True)
class ReferenceTab:
    """Components of the reference tab."""

    picture: gr.Image
    stage: Any
    tool: Any
    brush: Any
    mask: gr.Image
    label: Any
    more: Any
    draft: Any
    clear: Any
    find: Any


@dataclass(frozen=True)
class ClickTab:
    """Components of the click tab."""

    tab: Any
    tool: Any
    marks: Any
    undo: Any
    clear: Any


@dataclass(frozen=True)
class EverythingTab:
    """Components of the everything tab."""

    points_per_side: Any
    find: Any


@dataclass(frozen=True)
class Choices:
    """Components that choose the models."""

    preset: Any
    device: Any
    note: Any


@dataclass(frozen=True)
class Controls:
    """All components of the left half."""

    picture: gr.Image
    tabs: Any
    text: TextTab
    reference: ReferenceTab
    click: ClickTab
    everything: EverythingTab
    models: Choices


def make_controls(setup: Setup) -> Controls:
    """Make the left half, within a Blocks context."""
    picture = picture_upload("Picture", "picture", height=210)
    with gr.Tabs(elem_id="ways") as tabs:
        with gr.Tab("Text", id="text"):
            text = _text_tab(picture)
        with gr.Tab("Reference", id="reference"):
            reference = _reference_tab()
        with gr.Tab("Click", id="click") as click_tab:
            click = _click_tab(click_tab)
        with gr.Tab("Everything", id="everything"):
            everything = _everything_tab()
    return Controls(picture, tabs, text, reference, click, everything, _choices(setup))


def _text_tab(picture: gr.Image) -> TextTab:
    phrases = gr.Textbox(
        label="What to look for",
        placeholder="cat, red car",
        info="One a line, or separated by commas.",
        lines=2,
        max_lines=8,
        elem_id="phrases",
    )
    negatives = gr.Textbox(
        label="What it must not be",
        placeholder="toy car",
        info="Masks that fall on it are dropped. May stay empty.",
        lines=1,
        max_lines=4,
        elem_id="negatives",
    )
    find = gr.Button("Find", variant="primary", elem_id="find-text")
    gr.Examples(
        [[str(_EXAMPLES / name), words] for name, words in _PHRASES.items()],
        inputs=[picture, phrases],
        label="Try one of these",
        elem_id="examples",
        api_visibility="private",
        cache_examples=False,
    )
    return TextTab(phrases, negatives, find)


def _reference_tab() -> ReferenceTab:
    gr.HTML(
        '<p class="quiet">Show an object in one picture, and find its like in the picture above '
        "and in others.</p>"
    )
    example = picture_upload("Picture of an example", "example", height=130)
    tool = gr.Radio(
        _EXAMPLE_TOOLS, value="paint", label="Say which object is meant", elem_id="example-tool"
    )
    brush = gr.Slider(1, 20, 6, step=1, label="Brush", elem_id="brush")
    stage = make_stage(EXAMPLE_STAGE, empty="The example is shown here.", mode="mark", tool="paint")
    clear = gr.Button("Clear marks", size="sm", elem_id="clear-example")
    with gr.Accordion("More", open=False):
        mask = picture_upload("Or its mask: white on black", "example-mask", height=130)
        label = gr.Textbox(label="Call it", placeholder="reference", elem_id="example-label")
        more = gr.File(
            label="More pictures to search",
            file_count="multiple",
            file_types=["image"],
            height=120,
            elem_id="more-pictures",
        )
    find = gr.Button("Find its like", variant="primary", elem_id="find-reference")
    return ReferenceTab(
        example, stage, tool, brush, mask, label, more, gr.State(Draft()), clear, find
    )


def _click_tab(tab: Any) -> ClickTab:
    gr.HTML(
        '<p class="quiet">Click the object in the large picture; right-click, or switch to '
        "Background, for what does not belong to it. Drag to draw a box.</p>"
    )
    tool = gr.Radio(_FOREGROUND, value="foreground", label="A click marks", elem_id="click-tool")
    with gr.Row():
        undo = gr.Button("Undo", elem_id="undo", min_width=80)
        clear = gr.Button("Clear", elem_id="clear", min_width=80)
    return ClickTab(tab, tool, gr.State(Marks()), undo, clear)


def _everything_tab() -> EverythingTab:
    gr.HTML('<p class="quiet">Masks all over the picture, without saying what to look for.</p>')
    points = gr.Slider(
        0,
        64,
        0,
        step=4,
        label="Clicks along each side of the grid",
        info="More find smaller things and take longer. 0: as the preset does.",
        elem_id="points-per-side",
    )
    find = gr.Button("Find everything", variant="primary", elem_id="find-everything")
    return EverythingTab(points, find)


def _choices(setup: Setup) -> Choices:
    with gr.Accordion("Models", open=False, elem_id="models"):
        with gr.Row():
            preset = gr.Dropdown(
                preset_choices(),
                value=setup.preset if setup.preset in PRESETS else next(iter(PRESETS)),
                label="Preset",
                elem_id="preset",
                min_width=190,
            )
            devices = list(dict.fromkeys([setup.device, *device_choices()]))
            device = gr.Dropdown(
                devices, value=setup.device, label="Device", elem_id="device", min_width=190
            )
        note = gr.HTML(describe_preset(setup.preset), elem_id="preset-note")
    return Choices(preset, device, note)
