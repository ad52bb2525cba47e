"""The way to the models: one request at a time, a bounded line, and no work for who has left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from .asker import AskerLeft, watched

T = TypeVar("T")


class BusyError(Exception):
    """Too many requests wait already."""


class LeftError(Exception):
    """Who asked has closed the connection."""


class Lane:
    """Runs work in a thread, one piece after the other, in the order in which it came.

    One large picture is decoded at a time and one set of masks computed, which bounds the memory;
    torch uses all cores for it.

    Args:
        most: How many may wait; further ones are refused.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting = 0
        self._turn = anyio.Lock()

    async def run(self, work: Callable[[], T], receive: Receive) -> T:
        """Run work when its turn comes.

        Args:
            work: What to do; it may take long, and stops once nobody waits for it.
            receive: Of the request, whose body has been read.

        Raises:
            BusyError: Too many wait already.
            LeftError: The connection was closed meanwhile.
            Exception: Whatever the work raises.
        """
        if self.waiting > self.most:
            raise BusyError
        left = threading.Event()
        outcome: _Outcome[T] = _Outcome()
        self.waiting += 1
        try:
            async with anyio.create_task_group() as group:

                async def listen() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    left.set()
                    group.cancel_scope.cancel()

                group.start_soon(listen)
                async with self._turn:
                    await anyio.to_thread.run_sync(outcome.fill, work, left)
                group.cancel_scope.cancel()
        finally:
            left.set()  # a server that stops does not wait for the thread
            self.waiting -= 1
        return outcome.value()


class _Outcome(Generic[T]):
    """What a piece of work returned or raised."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self._error: Exception | None = None

    def fill(self, work: Callable[[], T], left: threading.Event) -> None:
        """Do the work, in this thread."""
        try:
            with watched(lambda: not left.is_set()):
                self._values.append(work())
        except AskerLeft:
            pass
        except Exception as error:
            self._error = error

    def value(self) -> T:
        if self._error is not None:
            raise self._error
        if not self._values:
            raise LeftError
        return self._values[0]
