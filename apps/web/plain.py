"""Components of Gradio that give handlers what the browser sent, and do nothing else with it."""

from __future__ import annotations

import functools
from abc import ABCMeta
from typing import Any

from gradio.data_classes import ListFiles


@functools.cache
def plain(component: type) -> Any:
    """Return a kind of component that gives the paths of its files, or its value as it is.

    Gradio's own components open pictures, and files leave an empty temporary file each time; lists
    refuse what they offered when the browser sent it, if another handler has changed them since.
    """
    # Of one instance it could not be changed: Gradio makes it anew when it is updated. Not a class
    # statement: Gradio's metaclass would write a .pyi file next to this module for it.
    own = {"preprocess": _preprocess, "is_template": True, "__module__": __name__}
    return ABCMeta.__new__(type(component), component.__name__, (component,), own)


def _preprocess(component: Any, payload: Any) -> Any:
    if payload is None or isinstance(payload, list):
        return payload
    if isinstance(payload, ListFiles):
        return [item.path for item in payload.root]
    return str(payload.path)
