"""The Edit tab: the list of collected objects, and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from . import views
from .collection import Collection
from .plain import plain

_TOOLS = [("Choose", "choose"), ("Paint", "paint"), ("Erase", "erase")]
_NONE = "None yet. Find or click something, then add it; or paint one."
_SOME = "Choose here or in the picture."


@dataclass(frozen=True)
class EditTab:
    """Components of the Edit tab."""

    tool: Any
    brush: Any
    items: Any
    colors: Any
    label: Any
    color: Any
    hide: Any
    merge: Any
    delete: Any

    @property
    def outputs(self) -> list[Any]:
        """The components that :meth:`draw` updates."""
        edits = [self.hide, self.merge, self.delete]
        return [self.items, self.colors, self.label, self.color, *edits]

    def draw(self, objects: Collection, chosen: list[int]) -> dict[Any, Any]:
        """Return updates that show a collection, with some objects chosen."""
        some = objects.pick(chosen)
        labels = {item.label for item in some}
        items = gr.CheckboxGroup(
            choices=views.object_choices(objects),
            value=[str(item.number) for item in some],
            info=_SOME if len(objects) else _NONE,
        )
        color: dict[str, Any] = {"value": some[0].color} if some else {}
        return {
            self.items: items,
            self.colors: views.object_colors(objects),
            self.label: gr.Textbox(
                labels.pop() if len(labels) == 1 else "", interactive=bool(some)
            ),
            self.color: gr.update(interactive=bool(some), **color),
            self.hide: gr.Button(interactive=bool(some)),
            self.merge: gr.Button(interactive=len(some) > 1),
            self.delete: gr.Button(interactive=bool(some)),
        }


def make_edit_tab() -> EditTab:
    """Make the tab's contents; call it inside the tab."""
    tool = gr.Radio(_TOOLS, value="choose", label="Tool", elem_id="edit-tool")
    brush = gr.Slider(1, 20, 6, step=1, label="Brush", elem_id="edit-brush")
    items = plain(gr.CheckboxGroup)(
        [], label="Objects", info=_NONE, show_select_all=True, elem_id="objects"
    )
    colors = gr.HTML("", elem_id="object-colors", apply_default_css=False)
    label = gr.Textbox(
        label="Label of the chosen",
        placeholder="Enter renames",
        max_lines=1,
        elem_id="object-label",
        interactive=False,
    )
    with gr.Row(elem_id="edit-buttons"):
        hide = gr.Button("Hide or show", size="sm", elem_id="hide", interactive=False, min_width=90)
        merge = gr.Button("Merge", size="sm", elem_id="merge", interactive=False, min_width=70)
        delete = gr.Button("Delete", size="sm", elem_id="delete", interactive=False, min_width=70)
    # Below the buttons, since its picker takes the room under it.
    color = gr.ColorPicker("#56B4E9", label="Colour", elem_id="object-color", interactive=False)
    return EditTab(tool, brush, items, colors, label, color, hide, merge, delete)
