"""The stored embeddings of class names are those that the script would write."""

from __future__ import annotations

import json
from pathlib import Path

from class_names import GENERAL, class_names
from safetensors import safe_open

from promptseg import models
from promptseg.models.pocket.conse import NAMES_FILE
from promptseg.models.pocket.minilm import SHA256


def test_the_stored_file_is_of_these_names_and_this_encoder() -> None:
    groups = class_names()
    with safe_open(Path(models.__file__).parent / "weights" / NAMES_FILE, framework="pt") as file:
        metadata = file.metadata()
        pairs = file.get_tensor("pairs").tolist()
    names = json.loads(metadata["names"])
    assert names == sorted({name for group in groups for name in group})
    assert metadata["minilm_sha256"] == SHA256
    stored: list[list[str]] = [[] for _ in range(1000)]
    for index, number in pairs:
        stored[index].append(names[number])
    assert stored == groups


def test_general_words_join_the_classes_own_names() -> None:
    groups = class_names()
    assert len(groups) == 1000
    assert all(groups)
    assert groups[281][-1] == "cat"
    assert groups[7] == ["cock", "chicken", "bird"]
    assert all(len(set(group)) == len(group) for group in groups)
    assert all(0 <= first <= last < 1000 and words for first, last, words in GENERAL)
