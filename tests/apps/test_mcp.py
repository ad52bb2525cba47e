"""The MCP server, asked by the protocol's own client in this process."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client
from PIL import Image

import promptseg
from promptseg.apps.mcp import build_mcp_server
from promptseg.apps.service.answers import Answerer
from promptseg.models.errors import InputError

EXAMPLES = Path(__file__).resolve().parents[2] / "apps" / "web" / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(EXAMPLES / "cat.jpg", root / "cat.jpg")
    shutil.copy(EXAMPLES / "cat.jpg", tmp_path / "outside.jpg")
    return root


@pytest.fixture
def call(pipe: promptseg.Pipeline, folder: Path):
    """Call a tool: (name, arguments) -> the protocol's answer."""
    server = build_mcp_server(Answerer(pipe, "pocket"), folder)

    def run(name: str, **arguments: Any) -> Any:
        async def ask() -> Any:
            async with Client(server) as client:
                if name == "list":
                    return await client.list_tools()
                return await client.call_tool(name, arguments)

        return finish(ask())

    return run


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end in a thread of its own: browser tests leave an event loop in this one."""

    async def whole() -> Any:
        return await work

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, whole).result()


def read(answer: Any) -> tuple[Image.Image, dict[str, Any]]:
    assert not answer.is_error, answer.content
    shown, told = answer.content
    assert shown.mime_type == "image/jpeg"
    return Image.open(io.BytesIO(base64.b64decode(shown.data))), json.loads(told.text)


def test_tools_describe_themselves(call) -> None:
    tools = {tool.name: tool for tool in call("list").tools}
    assert set(tools) == {"segment", "everything"}
    assert set(tools["segment"].input_schema["required"]) == {"image"}
    assert "why anything was left out" in tools["segment"].description


def test_phrases_are_found_and_saved(call, pipe: promptseg.Pipeline, folder: Path) -> None:
    answer = call("segment", image="cat.jpg", text=["cat", "unicorn"], save_to="masks")
    picture, told = read(answer)
    expected = pipe(folder / "cat.jpg", ["cat", "unicorn"])
    assert picture.size == (451, 300)
    assert (told["found"], told["width"], told["height"]) == (1, 451, 300)
    (mask,) = told["masks"]
    assert (mask["label"], mask["area"]) == ("cat", int(expected.masks[0].sum()))
    assert mask["box_xyxy"] == expected.boxes_xyxy[0].tolist()
    reasons = {item["label"]: item["reason"] for item in told["left_out"]}
    assert "presence" in reasons["unicorn"]
    with Image.open(folder / "masks" / "mask_01_cat.png") as image:
        assert np.array_equal(np.asarray(image) > 0, expected.masks[0])
    assert told["saved_to"] == str(folder / "masks")


def test_boxes_data_urls_and_everything(call, pipe: promptseg.Pipeline, folder: Path) -> None:
    content = (folder / "cat.jpg").read_bytes()
    link = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    _, told = read(call("segment", image=link, boxes=[[50, 50, 300, 250]]))
    expected = pipe(content, boxes=(50, 50, 300, 250))
    assert [mask["area"] for mask in told["masks"]] == [int(expected.masks[0].sum())]
    _, told = read(call("everything", image="cat.jpg", points_per_side=2))
    assert told["found"] == len(pipe.everything(content, points_per_side=2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image": "../outside.jpg", "text": ["cat"]}, "is not below the served folder"),
        ({"image": "/etc/passwd", "text": ["cat"]}, "is not below the served folder"),
        ({"image": "none.jpg", "text": ["cat"]}, "does not exist"),
        ({"image": "cat.jpg"}, "say what to look for"),
        ({"image": "cat.jpg", "text": ["x" * 201]}, "201 characters"),
        ({"image": "cat.jpg", "text": ["cat"], "save_to": "../x"}, "is not below the served"),
        ({"image": "cat.jpg", "points": [[9999, 1]]}, "outside the image"),
        ({"image": "data:image/png;base64,?", "text": ["cat"]}, "not valid base64"),
    ],
)
def test_what_cannot_be_used_is_told(call, arguments: dict[str, Any], words: str) -> None:
    answer = call("segment", **arguments)
    assert answer.is_error
    assert words in answer.content[0].text


def test_files_of_others_are_not_replaced(call, folder: Path) -> None:
    (folder / "masks").mkdir()
    (folder / "masks" / "overlay.png").write_text("mine")
    answer = call("segment", image="cat.jpg", text=["cat"], save_to="masks")
    assert answer.is_error
    assert (folder / "masks" / "overlay.png").read_text() == "mine"


def test_the_folder_must_be_there(pipe: promptseg.Pipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        build_mcp_server(Answerer(pipe, "pocket"), tmp_path / "none")
