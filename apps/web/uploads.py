"""Components for files of users that hand on the file as it came."""

from __future__ import annotations

from typing import Any

import gradio as gr


def picture_upload(label: str, elem_id: str, *, height: int) -> gr.Image:
    """Return a picture upload that gives its file's path and leaves reading it to the engine.

    Gradio's own opens the file first, turns and converts it, and fails on what is no image with
    an error that says nothing to a user.
    """
    upload = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=height,
        elem_id=elem_id,
        buttons=[],
    )
    # Not a subclass: for each of those Gradio writes a file of types beside its module.
    setattr(upload, "preprocess", _path_of)  # noqa: B010
    return upload


def _path_of(payload: Any) -> str | None:
    """Return the path of an uploaded file, which Gradio has checked to be one."""
    return None if payload is None else str(payload.path)
