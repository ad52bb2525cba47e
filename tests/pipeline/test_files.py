"""Files are written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from promptseg.pipeline.files import (
    find_leftovers,
    remove_leftovers,
    staging_folder,
    write_files,
    write_whole,
)

KILLED = """
import os, sys
from pathlib import Path
from promptseg.pipeline.files import staging_folder
with staging_folder(Path(sys.argv[1])) as staging:
    (staging / "half").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_was_there_stays_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_whole(path, b"first")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"first"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_in_the_place_is_replaced_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "a").symlink_to(other)
    write_whole(tmp_path / "a", b"new")
    assert other.read_text() == "mine"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_new_folder_appears_whole_and_files_of_others_stay(tmp_path: Path, monkeypatch) -> None:
    replace, moved = Path.replace, []

    def watched(path: Path, target: Path) -> Path:
        moved.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_files(tmp_path / "a", {"x": b"1", "y": b"2"})
    assert moved == [tmp_path / "a"]
    (tmp_path / "a" / "mine").write_bytes(b"m")
    write_files(tmp_path / "a", {"x": b"3"})
    found = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert found == {"x": b"3", "y": b"2", "mine": b"m"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_found_and_removed(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert run.returncode == -9
    (left,) = find_leftovers(tmp_path)
    assert (left / "half").read_text() == "half"
    with staging_folder(tmp_path) as living:
        remove_leftovers(tmp_path)
        assert living.is_dir()
        assert list(tmp_path.iterdir()) == [living]
    assert find_leftovers(tmp_path / "nowhere") == []
