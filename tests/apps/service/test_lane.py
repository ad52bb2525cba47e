"""The way to the models: in turn, a bounded line, and no work for who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from promptseg.apps.service.lane import BusyError, Lane, LeftError


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end in a thread of its own: browser tests leave an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def stays() -> dict[str, Any]:
    await asyncio.sleep(60)
    raise AssertionError("nobody stays so long")


def test_one_after_the_other_in_their_order() -> None:
    done: list[int] = []
    running = threading.Lock()

    def work(i: int) -> int:
        assert running.acquire(blocking=False)
        done.append(i)
        running.release()
        return i * 2

    async def run() -> None:
        lane = Lane(100)
        jobs = [lane.run(lambda i=i: work(i), stays) for i in range(20)]
        assert await asyncio.gather(*jobs) == [i * 2 for i in range(20)]
        assert lane.waiting == 0

    finish(run())
    assert done == list(range(20))


def test_the_line_is_bounded_and_errors_come_through() -> None:
    async def run() -> None:
        lane, go = Lane(1), threading.Event()
        first = asyncio.create_task(lane.run(lambda: go.wait(30), stays))
        second = asyncio.create_task(lane.run(lambda: 2, stays))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError):
            await lane.run(lambda: 3, stays)
        go.set()
        assert await asyncio.gather(first, second) == [True, 2]
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 // 0, stays)
        assert await lane.run(lambda: 4, stays) == 4

    finish(run())


def test_work_stops_when_its_asker_leaves_and_who_waits_is_next() -> None:
    steps = 0

    def endless() -> None:
        nonlocal steps
        while True:
            torch.zeros(1)
            steps += 1

    async def run() -> None:
        lane = Lane(10)

        async def leaves() -> dict[str, Any]:
            while steps < 10:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def left_already() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        first = asyncio.create_task(lane.run(endless, leaves))
        await asyncio.sleep(0)
        never = asyncio.create_task(lane.run(lambda: pytest.fail("was run"), left_already))
        second = asyncio.create_task(lane.run(lambda: "done", stays))
        for gone in (first, never):
            with pytest.raises(LeftError):
                await asyncio.wait_for(gone, 30)
        assert await asyncio.wait_for(second, 30) == "done"
        assert lane.waiting == 0

    finish(run())


def test_a_cancelled_request_stops_its_work() -> None:
    stopped = threading.Event()

    def endless() -> None:
        try:
            while True:
                torch.zeros(1)
        finally:
            stopped.set()

    async def run() -> None:
        task = asyncio.create_task(Lane(1).run(endless, stays))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(stopped.wait, 30)

    finish(run())
