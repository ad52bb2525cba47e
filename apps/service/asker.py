"""Stops work whose asker has left, wherever it is computing.

A thread cannot be ended from outside. So the work looks by itself, before each operation of torch
and at each step of a progress bar.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from torch.overrides import TorchFunctionMode


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
def watched(waiting: Callable[[], bool] | None) -> Iterator[None]:
    """Let whatever runs inside stop once nobody waits for it.

    Args:
        waiting: Tells whether somebody still waits; None where that is not known.
    """
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
