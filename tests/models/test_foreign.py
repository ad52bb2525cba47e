"""What others wrote is read only if it is a file, of bounded size and of the expected types."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from promptseg.models.errors import InputError
from promptseg.models.foreign import decode_json, read_regular


class Region(msgspec.Struct):
    label: str
    ids: list[int]


class Row(msgspec.Struct):
    regions: list[Region]
    score: float = 0.0


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, "it", limit=5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for place, says in (
        (path, "more than the"),
        (tmp_path / "b", "it does not exist"),
        (path / "b", "it does not exist"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / ("x" * 300), "too long for a file name"),
        (Path("a\0b"), "is not a path"),
    ):
        with pytest.raises(InputError, match=says):
            read_regular(place, "it", limit=4)


def test_json_of_the_type_is_read() -> None:
    content = '{"regions": [{"label": "d\u00e9j\u00e0", "ids": [1], "more": {}}], "score": 1}'
    for text in (content, content.encode(), b"\xef\xbb\xbf" + content.encode()):
        assert decode_json(text, Row, "it") == Row([Region("d\u00e9j\u00e0", [1])], 1.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "it is not valid JSON"),
        ("[]", "it: Expected object, got array"),
        ('{"regions": null}', "it: regions: Expected array, got null"),
        (
            '{"regions": [{"label": 3, "ids": []}]}',
            r"it: regions\[0\]\.label: Expected str, got int",
        ),
        ('{"regions": [{"ids": []}]}', r"it: regions\[0\]: Object missing required field label"),
        ('{"regions": [], "score": NaN}', "it is not valid JSON"),
        ('{"regions": [], "score": 1e999}', "it: score: Number out of range|not valid JSON"),
        ('{"regions": [{"label": "\\ud800", "ids": []}]}', "it is not valid JSON"),
        (b'{"regions": [{"label": "\xff", "ids": []}]}', "it is not valid JSON"),
        ("\ud800", "it is not valid JSON"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_json_is_refused_in_one_line(content: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        decode_json(content, Row, "it")
    assert "\n" not in str(caught.value)
