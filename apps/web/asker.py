"""Tells whether somebody still waits for the answer of an event of Gradio's queue.

Gradio frees a request's place in the queue when its handler returns, and cannot end a thread. An
asker has left who closed the page, dropped the connection or cancelled.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from gradio.context import LocalContext

# How long a request may run with no open connection that would carry its answer: a program asks and
# fetches the answer in two steps.
GRACE_SECONDS = 30.0
# Open connections for answers, by session and by event.
_listeners: Counter[str] = Counter()


@contextlib.contextmanager
def listening(key: str) -> Iterator[None]:
    """Count a connection that carries the answers of a session or of an event."""
    _listeners[key] += 1
    try:
        yield
    finally:
        _listeners[key] -= 1
        if not _listeners[key]:
            del _listeners[key]


def queued() -> Callable[[], bool] | None:
    """Return what tells whether the event that this thread answers is still wanted."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event_id is None:
        return None
    events = blocks._queue.event_ids_to_events
    if event_id not in events:
        return None

    heard = time.monotonic()

    def waiting() -> bool:
        nonlocal heard
        # Cancelling removes the event; a lost connection ends its life.
        event = events.get(event_id)
        if event is None or not event.alive:
            return False
        now = time.monotonic()
        if event_id in _listeners or event.session_hash in _listeners:
            heard = now
        return now - heard < GRACE_SECONDS

    return waiting
