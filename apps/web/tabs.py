"""The left half of the page: the picture, ways to say what to find in it, edits, and the models."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ...models.hub.find import find_places
from ...models.hub.sources import WeightSource
from ...pipeline.presets.catalog import PRESETS
from ..service.limits import MAX_POINTS_PER_SIDE
from ..wording import describe_size
from .actions import Draft
from .edit_tab import EditTab, make_edit_tab
from .plain import plain
from .request import Setup
from .stage import make_stage

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

    tool: Any
    clear: Any


@dataclass(frozen=True)
class EverythingTab:
    """Components of the everything tab."""

    points_per_side: Any
    find: Any


@dataclass(frozen=True)
class Choices:
    """Components that select the models."""

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
    edit: EditTab
    models: Choices


def make_controls(setup: Setup) -> Controls:
    """Make the left half; call it inside a Blocks context."""
    picture = picture_upload("Picture", "picture", height=210)
    with gr.Tabs(elem_id="ways") as tabs:
        with gr.Tab("Text", id="text"):
            text = _text_tab(picture)
        with gr.Tab("Reference", id="reference"):
            reference = _reference_tab()
        with gr.Tab("Click", id="click"):
            click = _click_tab()
        with gr.Tab("Everything", id="everything"):
            everything = _everything_tab()
        with gr.Tab("Edit", id="edit"):
            edit = make_edit_tab()
    return Controls(picture, tabs, text, reference, click, everything, edit, _choices(setup))


def _text_tab(picture: gr.Image) -> TextTab:
    phrases = gr.Textbox(
        label="What to look for",
        placeholder="cat, red car",
        info="Separate phrases with commas. Enter searches, Esc cancels.",
        lines=1,  # with more, Gradio would have Enter add a line
        max_lines=8,
        elem_id="phrases",
    )
    negatives = gr.Textbox(
        label="What to leave out (optional)",
        placeholder="toy car",
        info="Masks that cover these are rejected.",
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
        '<p class="quiet">Mark an object in an example picture to find similar ones in the picture '
        "above, or in several.</p>"
    )
    example = picture_upload("Example picture", "example", height=130)
    tool = gr.Radio(_EXAMPLE_TOOLS, value="paint", label="Mark the object", elem_id="example-tool")
    brush = gr.Slider(1, 20, 6, step=1, label="Brush", elem_id="brush")
    stage = make_stage(EXAMPLE_STAGE, empty="Your example appears here.", mode="mark", tool="paint")
    clear = gr.Button("Clear marks", size="sm", elem_id="clear-example")
    with gr.Accordion("More options", open=False):
        mask = picture_upload("Or upload its mask, white on black", "example-mask", height=130)
        label = gr.Textbox(
            label="Label for what is found", placeholder="reference", elem_id="example-label"
        )
        more = plain(gr.File)(
            label="More pictures to search",
            file_count="multiple",
            file_types=["image"],
            height=120,
            elem_id="more-pictures",
        )
    find = gr.Button("Find similar", variant="primary", elem_id="find-reference")
    return ReferenceTab(
        example, stage, tool, brush, mask, label, more, gr.State(Draft()), clear, find
    )


def _click_tab() -> ClickTab:
    gr.HTML(
        '<p class="quiet">Click an object in the large picture. Right-click (or switch to '
        "Background) what does not belong to it. Drag to draw a box.</p>"
    )
    tool = gr.Radio(_FOREGROUND, value="foreground", label="Tool", elem_id="click-tool")
    return ClickTab(tool, gr.Button("Clear marks", size="sm", elem_id="clear"))


def _everything_tab() -> EverythingTab:
    gr.HTML('<p class="quiet">Segment the whole picture; there is nothing to describe.</p>')
    points = gr.Slider(
        0,
        MAX_POINTS_PER_SIDE,
        0,
        step=4,
        label="Grid points per side (0 = preset's default)",
        info="More points find smaller objects but take longer.",
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


def picture_upload(label: str, elem_id: str, *, height: int) -> gr.Image:
    """Return a picture upload whose value is the path of the file exactly as it was uploaded.

    Gradio's own component opens, rotates and converts the file first, and fails on a file that is
    not an image with an error that means nothing to users.
    """
    upload: gr.Image = plain(gr.Image)(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=height,
        elem_id=elem_id,
        buttons=[],
    )
    return upload


def preset_choices() -> list[tuple[str, str]]:
    """Return (text to show, name) for each preset, with a note on those that lack weights."""
    return [(f"{name} (not ready)" if missing_weights(name) else name, name) for name in PRESETS]


def device_choices() -> list[str]:
    """Return the devices of this machine."""
    import torch

    devices = ["cpu"]
    count = torch.cuda.device_count()
    devices += ["cuda"] if count == 1 else [f"cuda:{i}" for i in range(count)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def missing_weights(preset: str) -> list[WeightSource]:
    """Return the weights that a preset needs and that are missing or incomplete."""
    missing = []
    for source in PRESETS[preset].sources if preset in PRESETS else ():
        places = find_places(source)
        if not places or places[0].missing:
            missing.append(source)
    return missing


def describe_preset(preset: str) -> str:
    """Return what a preset is, and which weights it still needs, as HTML."""
    found = PRESETS.get(preset)
    what = html.escape(found.description) if found is not None else "There is no such preset."
    missing = missing_weights(preset)
    if not missing:
        return f'<p class="quiet">{what}</p>'
    names = ", ".join(source.name for source in missing)
    size = describe_size(sum(source.bytes for source in missing))
    return (
        f'<p class="quiet">{what}</p><p class="needs">Not ready: {names} missing ({size}). '
        f"Run <code>promptseg models fetch {html.escape(preset)}</code> on the machine "
        "that runs this app, then select the preset again.</p>"
    )
