"""The journal of a run: what it resumes from, and what it refuses and leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptseg.apps.journal import Journal, is_journal
from promptseg.models.errors import InputError

ASKED = {"text": ("cat",), "top_k": None}


def journal(folder: Path, **changes: Any) -> Journal:
    return Journal(folder / "new" / "run.jsonl", "run", {**ASKED, **changes}, "start over")


def entries(folder: Path, **changes: Any) -> list[str]:
    return journal(folder, **changes).read(lambda entry: entry["image"])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of two entries."""
    begun = journal(tmp_path)
    assert begun.read(lambda entry: entry) == []
    begun.write([{"image": "a"}])
    begun.append({"image": "b\udcff"})
    return begun.path


def test_entries_are_read_back(written: Path, tmp_path: Path) -> None:
    assert entries(tmp_path) == ["a", "b\udcff"]
    assert is_journal(written, "run")
    assert not is_journal(written, "header")
    assert [path.name for path in written.parent.iterdir()] == ["run.jsonl"]


@pytest.mark.parametrize("cut", [1, 5])
def test_a_line_that_was_cut_off_is_ignored(written: Path, tmp_path: Path, cut: int) -> None:
    written.write_bytes(written.read_bytes()[:-cut])
    assert entries(tmp_path) == ["a"]


@pytest.mark.parametrize("content", ["", '{"run": {"te', '{"run": {"text": ["dog"]}}\n'])
def test_a_journal_without_entries_stands_in_nobodys_way(
    written: Path, tmp_path: Path, content: str
) -> None:
    written.write_text(content)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text": ["dog"]}, 'its text is ["cat"], not ["dog"] as in this run; start over'),
        ({"top_k": 1}, "its top_k is null, not 1 as"),
        ({"dtype": "fp32"}, 'its dtype is null, not "fp32"'),
        ({"text": ["x" * 99]}, "xxx... as in this run"),
    ],
)
def test_the_journal_of_another_run_is_refused(
    written: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    before = written.read_bytes()
    with pytest.raises(InputError) as caught:
        entries(tmp_path, **changes)
    assert str(caught.value).startswith(f"cannot resume from {str(written)!r}: ")
    assert says in str(caught.value)
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello\n", "its first line does not say what was asked"),
        (b"[1]\n", "its first line does not say what was asked"),
        (b'{"run": 3}\n', "its first line does not say what was asked"),
        (b"\xff\n", "it is not UTF-8 text"),
        (b'{"run": {"text": ["cat"], "top_k": null}}\n{"folder": 3}\n', "line 2 is broken"),
        (b'{"run": {"text": ["cat"], "top_k": null}}\nhello\n', "line 2 is broken"),
    ],
)
def test_other_files_are_refused_and_kept(
    written: Path, tmp_path: Path, content: bytes, says: str
) -> None:
    written.write_bytes(content)
    with pytest.raises(InputError, match=says):
        entries(tmp_path)
    assert written.read_bytes() == content
