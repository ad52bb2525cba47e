"""The stage: a photograph under its masks, on which users click, draw boxes, paint and choose."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

# The browser's part, as modules that the server offers at SCRIPT_URL.
SCRIPTS = Path(__file__).with_name("script")
SCRIPT_URL = "/script"
# Gradio looks for the names of the events in the text of this function.
_EVENTS = ("marked", "painted", "stroked", "picked", "deleted", "lacking")
_START = f"""
import(new URL(".{SCRIPT_URL}/stage.js", document.baseURI)).then(({{ startStage }}) => startStage({{
    element, props, watch, trigger, events: {[*_EVENTS]},
}}));
"""
# Static: when values change, the script redraws the canvases itself.
_TEMPLATE = """
<div class="stage is-empty" data-mode="{mode}" data-tool="{tool}" data-edit="choose" data-brush="6"
     data-count="0" data-objects="0" data-zoom="1"{keys}>
  <p class="stage-empty">{empty}</p>
  <div class="stage-frame">
    <div class="stage-window">
      <div class="stage-view">
        <img class="stage-photo" alt="" draggable="false">
        <canvas class="stage-objects"></canvas>
        <canvas class="stage-masks"></canvas>
        <canvas class="stage-paint"></canvas>
        <canvas class="stage-marks"></canvas>
      </div>
    </div>
    <div class="stage-zoom">
      <button type="button" data-step="in" aria-label="Zoom in">+</button>
      <button type="button" data-step="out" aria-label="Zoom out">&minus;</button>
      <button type="button" data-step="fit" aria-label="Whole picture">Fit</button>
    </div>
    <div class="stage-tip" hidden></div>
  </div>
  <div class="stage-legend"></div>
</div>
"""


def make_stage(
    elem_id: str,
    *,
    empty: str,
    mode: str = "view",
    tool: str = "foreground",
    keys: bool = False,
) -> gr.HTML:
    """Return a stage.

    It triggers these events:

    - "marked" with either ``point`` and ``label`` or ``box``, in pixels of the photograph;
    - "painted" with ``png``, a data URL, in the mode "mark";
    - "stroked" with ``points``, ``radius`` and ``erase``, in pixels, in the mode "edit";
    - "deleted" when the chosen objects are to go;
    - "picked" with the ``number`` of an object, or null, and whether ``more`` are wanted;
    - "lacking" when an object's picture was named that never came.

    Args:
        elem_id: The component's id in the page.
        empty: Text to show while there is no photograph.
        mode: "view", "mark" to take marks, or "edit" to choose, paint and erase.
        tool: For marks: "foreground", "background", "box", "paint" or "erase".
        keys: Whether it listens to the page's keyboard; one stage of a page may.
    """
    return gr.HTML(
        value={"masks": [], "points": [], "boxes": []},
        html_template=_TEMPLATE.format(
            mode=mode, tool=tool, empty=empty, keys=" data-keys" if keys else ""
        ),
        js_on_load=_START,
        apply_default_css=False,
        elem_id=elem_id,
        photo=None,
        objects=[],
        chosen=[],
    )


def set_data(elem_id: str, name: str) -> str:
    """Return JavaScript that sets a stage's mode, tool or brush to its argument."""
    return (
        f"(value) => {{ document.querySelector('#{elem_id} .stage').dataset.{name} = value; "
        "return []; }"
    )
