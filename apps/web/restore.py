"""Shows after a reload what was done before it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .actions import plainly
from .desk import Desk
from .lanes import MODELS
from .results import Thresholds, Updates

# The browser keeps the key for as long as its tab is open, and gives it to no other tab.
_KEPT = "promptseg"
_READ = f"() => [sessionStorage.getItem('{_KEPT}') || '']"
_WRITE = f"""(key) => {{
    sessionStorage.setItem('{_KEPT}', key);
    document.body.dataset.kept = 'true';
    return [];
}}"""
_MOST_KEY = 100


def wire_restore(page: gr.Blocks, desk: Desk) -> None:
    """Begin each page with what its tab had before, as far as the server still has it."""
    text, models = desk.controls.text, desk.controls.models
    kept = gr.Textbox(visible=False)
    # The key of a page whose answer has yet to be shown.
    asked = gr.State("")

    @plainly
    def begin(old: str | None) -> Updates:
        key = desk.shelf.open((old or "")[:_MOST_KEY])
        history = desk.shelf.get(key)
        updates: Updates = {desk.key: key, kept: key}
        if history.present.on_stage is None and not history.past and not history.future:
            return updates
        # Without the answer, which may take a search.
        updates |= desk.draw(history, Thresholds(), answered=False)
        request = history.present.shown.request
        if request is not None:
            updates[asked] = key
            updates |= {models.preset: request.setup.preset, models.device: request.setup.device}
            if request.phrases:
                updates[text.phrases] = ", ".join(request.phrases)
                updates[text.negatives] = ", ".join(request.negatives)
        return updates

    @plainly
    def answer(key: str, min_score: float, top_k: float, part: str) -> Updates:
        return desk.draw(desk.shelf.get(key), Thresholds(min_score, top_k, part))

    own: list[Any] = [
        desk.key,
        kept,
        asked,
        text.phrases,
        text.negatives,
        models.preset,
        models.device,
    ]
    begun = page.load(
        begin,
        [kept],
        [*own, *desk.outputs],
        js=_READ,
        show_progress="hidden",
        api_visibility="private",
    )
    begun.then(None, [kept], None, js=_WRITE, api_visibility="private")
    asked.change(
        answer,
        [asked, *desk.view.thresholds],
        desk.outputs,
        show_progress_on=[desk.view.headline],
        concurrency_id=MODELS,
        concurrency_limit=1,
        api_visibility="private",
    )
