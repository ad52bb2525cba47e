"""Stops work whose asker has left: closed the page, dropped the connection or cancelled.

Gradio frees a request's place in the queue when its handler returns, and cannot end a thread. So
the handler looks by itself, before each operation of torch and at each step of a progress bar.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from gradio.context import LocalContext
from torch.overrides import TorchFunctionMode

# How long a request may run with no open connection that would carry its answer: a program asks and
# fetches the answer in two steps.
GRACE_SECONDS = 30.0
# Open connections for answers, by session and by event.
_listeners: Counter[str] = Counter()


class AskerLeft(BaseException):
    """Nobody waits for the answer any more.

    Not an Exception: code that turns any error of a decoder or a model into a message must not
    take it for one.
    """


# Tells whether somebody still waits; unset where that is not known, as in tests of a handler.
_waiting: ContextVar[Callable[[], bool] | None] = ContextVar("waiting", default=None)


def check_waiting() -> None:
    """Raise AskerLeft if nobody waits for the answer of this thread's request any more."""
    waiting = _waiting.get()
    if waiting is not None and not waiting():
        raise AskerLeft


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


@contextlib.contextmanager
def watched(waiting: Callable[[], bool] | None = None) -> Iterator[None]:
    """Let whatever runs inside stop once nobody waits for it.

    Args:
        waiting: Tells whether somebody still waits; by default Gradio's queue does.
    """
    waiting = waiting or _queued()
    if waiting is None:
        yield
        return
    token = _waiting.set(waiting)
    try:
        with _Checking():
            check_waiting()
            yield
    finally:
        _waiting.reset(token)


class _Checking(TorchFunctionMode):
    """Looks before each operation of torch in this thread."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        check_waiting()
        return func(*args, **(kwargs or {}))


def _queued() -> Callable[[], bool] | None:
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
