"""The folder of a cache: least recently used first out, shared by processes, never half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import promptseg
from promptseg.models.errors import InputError
from promptseg.pipeline.cache.store import CachePart, EmbeddingCache, get_kept

CPU = torch.device("cpu")
# Each entry of the tests, and a limit that four of them fit into.
CELLS = 25_000
FOUR_GB = 4.5 * CELLS * 4 / 1e9


def picture(number: int) -> np.ndarray:
    return np.full((4, 5, 3), number, np.uint8)


def part_of(cache: EmbeddingCache, model: str = "m") -> CachePart[Tensor]:
    return cache.part(Tensor, lambda: model, dtype=torch.float32, device=CPU)


def value(number: int) -> Callable[[], Tensor]:
    return lambda: torch.full((CELLS,), float(number))


def never() -> Tensor:
    raise AssertionError("it is in the cache")


def test_a_value_is_made_once(tmp_path: Path) -> None:
    part = part_of(EmbeddingCache(tmp_path))
    assert torch.equal(part.get(picture(1), value(1)), value(1)())
    assert torch.equal(part.get(picture(1), never), value(1)())
    again = part_of(EmbeddingCache(tmp_path))
    assert torch.equal(get_kept(again, picture(1).copy(order="F"), never), value(1)())
    assert get_kept(None, picture(1), value(2))[0] == 2


@pytest.mark.parametrize("other", ["model", "dtype", "pixels", "shape", "version", "kind"])
def test_a_value_is_found_only_under_all_that_it_depends_on(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(tmp_path)
    part_of(cache).get(picture(1), value(1))
    pixels, part = picture(1), part_of(cache, "n" if other == "model" else "m")
    if other == "dtype":
        part = cache.part(Tensor, lambda: "m", dtype=torch.bfloat16, device=CPU)
    if other == "kind":
        part = cache.part(torch.nn.Parameter, lambda: "m", dtype=torch.float32, device=CPU)
    if other == "version":
        monkeypatch.setattr("promptseg.pipeline.cache.store.__version__", "0.0.0")
    if other == "pixels":
        pixels[0, 0, 0] = 2
    if other == "shape":
        pixels = pixels.reshape(5, 4, 3)
    assert part.get(pixels, value(7))[0] == 7
    assert part_of(cache).get(picture(1), value(8))[0] == (7 if other == "version" else 1)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"mine" * CELLS)
    cache = EmbeddingCache(tmp_path, max_gb=FOUR_GB)
    part = part_of(cache)
    for number in range(4):
        part.get(picture(number), value(number))
        time.sleep(0.01)
    part.get(picture(0), never)  # used again: 1 is the oldest now
    part.get(picture(4), value(4))
    assert cache.size() <= cache.max_bytes
    part.get(picture(0), never)
    part.get(picture(4), never)
    assert part.get(picture(1), value(9))[0] == 9
    assert (tmp_path / "weights.safetensors").exists()


def test_a_value_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, max_gb=1e-6)
    assert part_of(cache).get(picture(1), value(1))[0] == 1
    assert cache.size() == 0


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    part = part_of(EmbeddingCache(tmp_path))
    part.get(picture(1), value(1))
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    for damaged in (b"", content[:-100], content[:-1] + b"\x01", b"\xff" * 300):
        path.write_bytes(damaged)
        assert part.get(picture(1), value(2))[0] == 2
        path.write_bytes(content)
    path.unlink()
    path.mkdir()
    assert part.get(picture(1), value(3))[0] == 3


def test_an_entry_moved_to_another_name_is_not_taken_for_it(tmp_path: Path) -> None:
    part = part_of(EmbeddingCache(tmp_path))
    part.get(picture(1), value(1))
    (path,) = tmp_path.glob("*.safetensors")
    path.rename(tmp_path / f"{part.name(picture(2))}.safetensors")
    assert part.get(picture(2), value(2))[0] == 2


def test_a_full_disk_costs_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("promptseg.pipeline.cache.store.write_whole", full)
    part = part_of(EmbeddingCache(tmp_path))
    assert [part.get(picture(i), value(i))[0] for i in range(3)] == [0, 1, 2]
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_bad_caches_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "x", "", "a\0b"):
        with pytest.raises(InputError, match=r"cache.*(give another|path of a folder)"):
            EmbeddingCache(folder)
    for size in (0, -1, float("nan"), float("inf"), True):
        with pytest.raises(InputError, match="positive number of GB"):
            EmbeddingCache(tmp_path, max_gb=size)
    with pytest.raises(InputError, match="cache"):
        promptseg.load(cache=tmp_path / "file")


WRITER = """
import sys, numpy as np, torch
from promptseg.pipeline.cache.store import EmbeddingCache
part = EmbeddingCache(sys.argv[1], max_gb=float(sys.argv[2])).part(
    torch.Tensor, lambda: "m", dtype=torch.float32, device=torch.device("cpu"))
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    number = i % 20
    picture = np.full((4, 5, 3), number, np.uint8)
    found = part.get(picture, lambda: torch.full((25_000,), float(number)))
    assert bool((found == number).all())
"""


def start_writer(folder: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(FOUR_GB), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_folder_and_a_killed_one_leaves_no_wrong_entry(tmp_path: Path) -> None:
    """Of three that read, write and evict at once, one is killed in the midst of it."""
    killed, writer = start_writer(tmp_path, 10**9), start_writer(tmp_path, 300)
    cache = EmbeddingCache(tmp_path, max_gb=FOUR_GB)
    part = part_of(cache)
    for process in (killed, writer):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for i in range(200):
        assert bool((part.get(picture(i % 20), value(i % 20)) == i % 20).all())
        if i == 100:
            os.kill(killed.pid, signal.SIGKILL)
            killed.communicate()
    writer.communicate(timeout=60)
    assert writer.returncode == 0
    for number in range(20):
        assert bool((part.get(picture(number), value(number)) == number).all())
    cache._make_room()
    assert cache.size() <= cache.max_bytes * 1.02
    assert not list(tmp_path.glob(".promptseg-*"))
