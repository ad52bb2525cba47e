"""The stage: a photograph under its masks, on which users click, draw boxes and paint."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_SCRIPT = Path(__file__).with_name("stage.js")
# Static: when values change, the script redraws the canvases itself.
_TEMPLATE = """
<div class="stage is-empty" data-mode="{mode}" data-tool="{tool}" data-brush="6" data-count="0">
  <p class="stage-empty">{empty}</p>
  <div class="stage-frame">
    <img class="stage-photo" alt="" draggable="false">
    <canvas class="stage-masks"></canvas>
    <canvas class="stage-paint"></canvas>
    <canvas class="stage-marks"></canvas>
    <div class="stage-tip" hidden></div>
  </div>
  <div class="stage-legend"></div>
</div>
"""


def make_stage(
    elem_id: str, *, empty: str, mode: str = "view", tool: str = "foreground"
) -> gr.HTML:
    """Return a stage.

    It triggers "marked" with either ``point`` and ``label`` or ``box``, in pixels of the
    photograph, and "painted" with ``png``, a data URL.

    Args:
        elem_id: The component's id in the page.
        empty: Text to show while there is no photograph.
        mode: "view", or "mark" to take marks.
        tool: "foreground", "background", "box", "paint" or "erase".
    """
    return gr.HTML(
        value={"masks": [], "points": [], "boxes": []},
        html_template=_TEMPLATE.format(mode=mode, tool=tool, empty=empty),
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
        photo=None,
    )


def set_data(elem_id: str, name: str) -> str:
    """Return JavaScript that sets a stage's mode, tool or brush to its argument."""
    return (
        f"(value) => {{ document.querySelector('#{elem_id} .stage').dataset.{name} = value; "
        "return []; }"
    )
