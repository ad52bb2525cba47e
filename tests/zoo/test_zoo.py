"""A zoo of bad and odd input: each is refused by the documented error, on one line, or answered."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import signal
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import promptseg
from promptseg import InputError, ModelNotFoundError, Query, Reference
from promptseg.apps.cli.main import app
from promptseg.apps.cli.options import ModelOptions
from promptseg.apps.cli.run_summary import RUN_FILE, RUN_KEY, RunLog
from promptseg.apps.evaluation.coco_dataset import read_coco
from promptseg.apps.evaluation.index_folder import read_index
from promptseg.apps.evaluation.shapes import read_shape
from promptseg.apps.exports.coco import CocoExporter
from promptseg.apps.exports.voc import VocExporter
from promptseg.apps.exports.yolo import YoloExporter
from promptseg.apps.journal import Journal
from promptseg.models.checkpoint import read_state_dict
from promptseg.models.errors import CheckpointError, PromptsegError
from promptseg.models.registry import create_model
from promptseg.pipeline.images import load_image, load_mask
from promptseg.pipeline.prompters.reference.concepts import open_concept
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.scoring.ranking import RankingConfig, rank

SIZE = (12, 9)
# What is expected where it is no error: a refusal of the command line, an answer with nothing in
# it, an answer.
REFUSED, NOTHING, ANSWER = "refused", "nothing found", "answer"
LONGEST_SECONDS = 30

Act = Callable[[Path], Any]
Case = tuple[str, str, Act, Any]
CASES: list[Case] = []


def add(kind: str, expected: Any, cases: dict[str, Act]) -> None:
    CASES.extend((kind, name, act, expected) for name, act in cases.items())


# Files -------------------------------------------------------------------------------------------


def png(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, form, **options)
    return stream.getvalue()


RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
PNG, JPEG, TIFF = png(RGB), png(RGB, "JPEG"), png(RGB, "TIFF")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def written(content: bytes, name: str, read: Callable[[Path], Any]) -> Act:
    def act(folder: Path) -> Any:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return act


def piped(name: str, read: Callable[[Path], Any]) -> Act:
    def act(folder: Path) -> Any:
        os.mkfifo(folder / name)
        return read(folder / name)

    return act


def looped(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


BYTES_OF_NO_IMAGE = {
    "empty file": b"",
    "one byte": b"\x89",
    "text": b"dear diary\n",
    "HTML": b"<!doctype html><title>404</title>",
    "zeros": b"\0" * 1000,
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
    "half a PNG": PNG[: len(PNG) // 2],
    "PNG header": PNG[:8],
    "PNG without pixels": png_of_size(0, 0),
    "PNG of 2**31 pixels a side": png_of_size(2**31 - 1, 2**31 - 1),
    "PNG of 60000 pixels a side": png_of_size(60_000, 60_000),
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "JPEG header": JPEG[:4],
    "half a TIFF": TIFF[: len(TIFF) // 2],
    "TIFF header": b"II*\0\xff\xff\xff\xff",
    "GIF header": b"GIF89a\xff\xff\xff\xff",
    "BMP header": b"BM" + b"\xff" * 60,
    "WebP header": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "JPEG 2000 header": b"\0\0\0\x0cjP  \r\n\x87\n",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.4\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "ICO": png(RGB, "ICO"),
    "PCX": png(RGB, "PCX"),
    "SPIDER": struct.pack(">27f", *[1.0] * 27) + b"\0" * 1000,
    "zip": b"PK\x05\x06" + b"\0" * 18,
}

for kind, read in (("image", load_image), ("mask", load_mask)):
    add(
        f"{kind}: file",
        InputError,
        {name: written(data, f"{name}.png", read) for name, data in BYTES_OF_NO_IMAGE.items()}
        | {
            "pipe": piped("pipe.png", read),
            "device": lambda _, read=read: read("/dev/zero"),
            "folder": lambda folder, read=read: read(folder),
            "missing": lambda folder, read=read: read(folder / "none.png"),
            "below a file": written(PNG, "a.png", lambda path, read=read: read(path / "b.png")),
            "loop of links": lambda folder, read=read: read(looped(folder)),
            "empty path": lambda _, read=read: read(""),
            "NUL in the path": lambda _, read=read: read("a\0b.png"),
            "path of 300 characters": lambda _, read=read: read("x" * 300),
            "URL": lambda _, read=read: read("https://example.org/cat.jpg"),
            "bytes of no image": lambda _, read=read: read(b"no image"),
            "empty stream": lambda _, read=read: read(io.BytesIO()),
        },
    )
    add(
        f"{kind}: value",
        InputError,
        {
            str(name): lambda _, value=value, read=read: read(value)
            for name, value in {
                "None": None,
                "number": 3,
                "list": [[0, 1]],
                "dict": {},
                "floats": np.zeros(SIZE),
                "complex": np.zeros(SIZE, complex),
                "objects": np.full(SIZE, None),
                "texts": np.full(SIZE, "x"),
                "0 dimensions": np.array(3, np.uint8),
                "1 dimension": np.zeros(9, np.uint8),
                "4 dimensions": np.zeros((1, *SIZE, 3), np.uint8),
                "5 channels": np.zeros((*SIZE, 5), np.uint8),
                "tensor of floats": torch.zeros(3, *SIZE),
                "tensor of a batch": torch.zeros(1, 3, *SIZE, dtype=torch.uint8),
            }.items()
        },
    )
add(
    "image: value",
    InputError,
    {
        "no rows": lambda _: load_image(np.zeros((0, 9, 3), np.uint8)),
        "no columns": lambda _: load_image(np.zeros((9, 0, 3), np.uint8)),
        "16 bits": lambda _: load_image(np.zeros((*SIZE, 3), np.uint16)),
        "bool": lambda _: load_image(np.zeros(SIZE, bool)),
        "2 channels": lambda _: load_image(np.zeros((*SIZE, 2), np.uint8)),
        "PIL without pixels": lambda _: load_image(Image.new("RGB", (0, 5))),
    },
)


# What is shown -----------------------------------------------------------------------------------

ODD_LABELS = {"empty": "", "space": "  ", "number": 3, "None": None, "list": ["a"]}
add(
    "reference",
    InputError,
    {f"label: {name}": lambda _, v=v: Reference(RGB, box=(1, 1, 5, 5), label=v)
     for name, v in ODD_LABELS.items()}
    | {
        "nothing shown": lambda _: Reference(RGB),
        "mask and box": lambda _: Reference(RGB, np.ones(SIZE, bool), (1, 1, 5, 5)),
        "empty mask": lambda _: Reference(RGB, np.zeros(SIZE, bool)),
        "mask of everything": lambda _: Reference(RGB, np.ones(SIZE, bool)),
        "mask of another size": lambda _: Reference(RGB, np.eye(5, dtype=bool)),
        "box outside": lambda _: Reference(RGB, box=(100, 100, 200, 200)),
        "box of three numbers": lambda _: Reference(RGB, box=(1, 2, 3)),
        "box of text": lambda _: Reference(RGB, box="1,2,3,4"),
        "box of NaN": lambda _: Reference(RGB, box=(float("nan"), 1, 2, 3)),
        "point outside": lambda _: Reference(RGB, point=(-5, 3)),
        "point of infinity": lambda _: Reference(RGB, point=(float("inf"), 3)),
    },
)  # fmt: skip


# Texts -------------------------------------------------------------------------------------------

add(
    "text",
    InputError,
    {
        f"{field}: {name}": lambda _, field=field, value=value: Query(**{field: value})
        for field in ("text", "negative_text")
        for name, value in {
            "empty": "",
            "spaces": "   ",
            "line breaks": "\n\n",
            "separators": ",;.",
            "number": 3,
            "bytes": b"cat",
            "list with a number": ["cat", 3],
            "list with None": [None],
            "list with an empty text": ["cat", ""],
            "lone surrogate": "\ud800",
            "lists in a list": [["cat"]],
        }.items()
    },
)


# Marks -------------------------------------------------------------------------------------------


def ask(**marks: Any) -> Act:
    return lambda _: Query(**marks).check_fits(SIZE)


add(
    "marks",
    InputError,
    {
        "nothing": ask(),
        "point of text": ask(points="1,2"),
        "point of texts": ask(points=[("a", "b")]),
        "point of three numbers": ask(points=[(1, 2, 3)]),
        "point of one number": ask(points=[5]),
        "ragged points": ask(points=[(1, 2), (3,)]),
        "points of objects": ask(points=[(object(), 1)]),
        "points of None": ask(points=[(None, 1)]),
        "NaN point": ask(points=[(float("nan"), 1)]),
        "infinite point": ask(points=[(1, float("-inf"))]),
        "point of 400 digits": ask(points=[(10**400, 1)]),
        "point beyond float32": ask(points=[(1e300, 1)]),
        "complex point": ask(points=[(1j, 1)]),
        "point left of the image": ask(points=[(-1, 3)]),
        "point right of the image": ask(points=[(90, 3)]),
        "point below the image": ask(points=[(3, 1200)]),
        "points of 4 dimensions": ask(points=np.zeros((1, 1, 1, 2))),
        "labels alone": ask(point_labels=[1]),
        "too few labels": ask(points=[(1, 1), (2, 2)], point_labels=[1]),
        "too many labels": ask(points=[(1, 1)], point_labels=[1, 0]),
        "label 7": ask(points=[(1, 1)], point_labels=[7]),
        "label 0.5": ask(points=[(1, 1)], point_labels=[0.5]),
        "label of text": ask(points=[(1, 1)], point_labels=["fg"]),
        "ragged labels": ask(points=[(1, 1), (2, 2)], point_labels=[[1], [1, 0]]),
        "NaN label": ask(points=[(1, 1)], point_labels=[float("nan")]),
        "box of text": ask(boxes="1,1,5,5"),
        "box of three numbers": ask(boxes=[(1, 1, 5)]),
        "box of five numbers": ask(boxes=[(1, 1, 5, 5, 5)]),
        "box with its corners swapped": ask(boxes=[(5, 5, 1, 1)]),
        "NaN box": ask(boxes=[(1, 1, float("nan"), 5)]),
        "infinite box": ask(boxes=[(1, 1, float("inf"), 5)]),
        "box outside": ask(boxes=[(50, 50, 60, 60)]),
        "box left of the image": ask(boxes=[(-9, 1, -2, 5)]),
        "box of 400 digits": ask(boxes=[(0, 0, 10**400, 5)]),
        "box of a dict": ask(boxes={"x0": 1}),
        "ragged boxes": ask(boxes=[(1, 1, 5, 5), (1, 2)]),
        "box of bools as text": ask(boxes=[("True", "False", "1", "2")]),
    },
)


# Options of the command line ---------------------------------------------------------------------


class Stub:
    """Reads the image and checks the query against it, and finds nothing."""

    def propose(self, image: Any, query: Query, **options: object) -> Proposals:
        pixels = load_image(image)
        query.check_fits((pixels.shape[0], pixels.shape[1]))
        empty = np.zeros(0, np.float32)
        return Proposals.of(np.zeros((0, *pixels.shape[:2]), bool), [], empty, empty, empty)

    def rank(self, proposals: Proposals, **_: Any) -> Any:
        return rank(proposals, RankingConfig())


def run(command: str, *arguments: str, photo: bool = True) -> Act:
    def act(folder: Path) -> Any:
        (folder / "photo.png").write_bytes(PNG)
        (folder / "broken.png").write_bytes(PNG[:40])
        (folder / "notes.txt").write_text("notes")
        (folder / "nothing").mkdir()
        given = ["photo.png"] if photo else []
        return CliRunner().invoke(app, [command, *given, *arguments])

    return act


add(
    "options: segment",
    REFUSED,
    {
        " ".join(arguments)[:60]: run("segment", *arguments, *tail)
        for arguments, tail in [
            (["--top-k", "0", "-t", "cat"], []),
            (["--top-k", "many", "-t", "cat"], []),
            (["--min-score", "2", "-t", "cat"], []),
            (["--min-score", "nan", "-t", "cat"], []),
            (["--format", "papyrus", "-t", "cat"], []),
            (["--format", "", "-t", "cat"], []),
            (["-t", ""], []),
            (["-t", "  "], []),
            (["-t", ","], []),
            (["--negative", "", "-t", "cat"], []),
            (["--point", "1"], []),
            (["--point", "a,b"], []),
            (["--point", "nan,1"], []),
            (["--point", "1e999,1"], []),
            (["--point", "1000,1"], []),
            (["--point", "1,2,3,4,5"], []),
            (["--box", "1,2,3"], []),
            (["--box", "5,5,1,1"], []),
            (["--box", "100,100,200,200"], []),
            (["--box", "a,b,c,d"], []),
            (["--reference", "none.png"], ["--reference-box", "1,1,5,5"]),
            (["--reference", "photo.png"], []),
            (["--reference", "photo.png", "--reference-mask", "none.png"], []),
            (["--reference", "photo.png", "--reference-box", "x"], []),
            (["--reference-mask", "photo.png", "-t", "cat"], []),
            (["--no-such-option"], []),
            (["--out", "photo.png", "-t", "cat"], []),
        ]
    }
    | {
        "no image": run("segment", "-t", "cat", photo=False),
        "no query": run("segment"),
        "empty image path": run("segment", "", "-t", "cat", photo=False),
        "missing image": run("segment", "none.png", "-t", "cat", photo=False),
        "broken image": run("segment", "broken.png", "-t", "cat", photo=False),
        "text file": run("segment", "notes.txt", "-t", "cat", photo=False),
        "folder without images": run("segment", "nothing", "-t", "cat", photo=False),
        "URL": run("segment", "https://example.org/a.jpg", "-t", "cat", photo=False),
        "/dev/zero": run("segment", "/dev/zero", "-t", "cat", photo=False),
    },
)
add(
    "options: models",
    REFUSED,
    {
        " ".join(arguments): run("segment", *arguments, "-t", "cat")
        for arguments in [
            ["--preset", "huge"],
            ["--preset", ""],
            ["--device", "toaster"],
            ["--dtype", "fp7"],
            ["--strategy", "guess"],
            ["--preset", "mobile", "--weights", "nowhere"],
        ]
    },
)
add(
    "options: concepts",
    REFUSED,
    {
        value[:20]: run("segment", "--concept", value)
        for value in ("none", "nothing", "/dev/zero", "notes.txt", "photo.png", "x" * 300)
    },
)
add(
    "options: other commands",
    REFUSED,
    {
        "unknown command": run("segmint", photo=False),
        "models fetch nothing": run("models", "fetch", photo=False),
        "models fetch unknown": run("models", "fetch", "nonsense", photo=False),
        "everything missing": run("everything", "none.png", photo=False),
        "everything broken": run("everything", "broken.png", photo=False),
        "eval without data": run("eval", photo=False),
        "eval missing": run("eval", "--data", "none.json", photo=False),
        "eval text": run("eval", "--data", "notes.txt", photo=False),
        "eval folder without index": run("eval", "--data", "nothing", photo=False),
        "eval device": run("eval", "--data", "/dev/zero", photo=False),
        "eval limit 0": run("eval", "--data", "nothing", "--limit", "0", photo=False),
        "eval failures": run("eval", "--data", "nothing", "--failures", "a.jpg", photo=False),
        "eval json to a folder": run("eval", "--data", "nothing", "--json", "nothing", photo=False),
    },
)
add(
    "options: Python",
    (InputError, ModelNotFoundError),
    {
        "preset unknown": lambda _: promptseg.load("huge"),
        "preset a list": lambda _: promptseg.load(["pocket"]),
        "preset None": lambda _: promptseg.load(None),
        "device unknown": lambda _: promptseg.load("pocket", device="toaster"),
        "device a number of 99 digits": lambda _: promptseg.load(
            "pocket", device="cuda:" + "9" * 99
        ),
        "device a list": lambda _: promptseg.load("pocket", device=["cpu"]),
        "dtype unknown": lambda _: promptseg.load("pocket", dtype="fp7"),
        "dtype integer": lambda _: promptseg.load("pocket", dtype=torch.int8),
        "weights a number": lambda _: promptseg.load("pocket", weights=3),
        "strategy unknown": lambda _: promptseg.load("pocket", strategy="guess"),
        "strategy a list": lambda _: promptseg.load("pocket", strategy=["graph"]),
        "model unknown": lambda _: create_model("sam_vit_z"),
        "model on no device": lambda _: create_model("sam_vit_t", device="toaster"),
        "SAM 2.1 without weights": lambda _: create_model("sam2.1_hiera_tiny"),
    },
)


# Checkpoints -------------------------------------------------------------------------------------


def saved(content: Any, name: str = "a.pt", **options: Any) -> Act:
    def act(folder: Path) -> Any:
        torch.save(content, folder / name, **options)
        return read_state_dict(folder / name)

    return act


def safetensors_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def indexed(content: bytes) -> Act:
    return written(content, "model.safetensors.index.json", read_state_dict)


def zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DEEP = b"[" * 50_000 + b"]" * 50_000
add(
    "checkpoint",
    CheckpointError,
    {
        f"{name}{suffix}": written(data, f"a{suffix}", read_state_dict)
        for suffix in (".pt", ".safetensors")
        for name, data in {
            "empty": b"",
            "one byte": b"\x80",
            "text": b"no weights",
            "HTML": b"<html>Bad gateway</html>",
            "zeros": b"\0" * 100,
            "ones": b"\xff" * 100,
            "LFS pointer": BYTES_OF_NO_IMAGE["LFS pointer"],
            "image": PNG,
            "empty zip": zip_of(),
        }.items()
    }
    | {
        f"safetensors: {name}": written(safetensors_of(*parts), "a.safetensors", read_state_dict)
        for name, parts in {
            "no tensors": ({},),
            "list": ([],),
            "deep": (b'{"a": ' + DEEP + b"}",),
            "cut off": ({"a": TENSOR}, b"1234"),
            "too long": ({"a": TENSOR}, b"1" * 9),
            "unknown type": ({"a": {**TENSOR, "dtype": "F3"}}, b"1" * 8),
            "complex": ({"a": {**TENSOR, "dtype": "C64", "shape": [1]}}, b"1" * 8),
            "huge shape": ({"a": {**TENSOR, "shape": [2**62, 4]}}, b"1" * 8),
            "negative shape": ({"a": {**TENSOR, "shape": [-2]}}, b"1" * 8),
            "offsets swapped": ({"a": {**TENSOR, "data_offsets": [8, 0]}}, b"1" * 8),
        }.items()
    }
    | {
        "missing": lambda folder: read_state_dict(folder / "none.pt"),
        "folder without weights": read_state_dict,
        "device": lambda _: read_state_dict("/dev/zero"),
        "pipe": piped("a.pt", read_state_dict),
        "other ending": written(PNG, "a.png", read_state_dict),
        "pickle of text": written(pickle.dumps("x"), "a.pt", read_state_dict),
        "pickle of code": written(pickle.dumps(Path.touch), "a.pt", read_state_dict),
        "zip without pickle": written(zip_of(notes=b"x"), "a.pt", read_state_dict),
        "zip with a bad pickle": written(
            zip_of(**{"data.pkl": b"\x80\x02("}), "a.pt", read_state_dict
        ),
        "list of tensors": saved([torch.zeros(2)]),
        "number": saved(3),
        "no tensors": saved({}),
        "numbers by name": saved({"a": 3, "b": torch.zeros(2)}),
        "sparse": saved({"a": torch.eye(3).to_sparse()}),
        "expanded": saved({"a": torch.zeros(1).expand(10**9)}),
        "complex": saved({"a": torch.zeros(2, dtype=torch.complex64)}),
        "wrapped number": saved({"state_dict": 3}),
        "index: text": indexed(b"no JSON"),
        "index: list": indexed(b"[]"),
        "index: no map": indexed(b"{}"),
        "index: numbers": indexed(b'{"weight_map": {"a": 3}}'),
        "index: deep": indexed(b'{"weight_map": ' + DEEP + b"}"),
        "index: elsewhere": indexed(b'{"weight_map": {"a": "../a.safetensors"}}'),
        "index: missing": indexed(b'{"weight_map": {"a": "b.safetensors"}}'),
        "index: long name": indexed(b'{"weight_map": {"a": "' + b"x" * 5000 + b'"}}'),
        "index: empty": indexed(b'{"weight_map": {}}'),
    },
)  # fmt: skip


# Concepts ----------------------------------------------------------------------------------------


def concept(tensors: dict[str, torch.Tensor], **metadata: str) -> Act:
    def act(folder: Path) -> Any:
        save_file(tensors or {"a": torch.zeros(1)}, folder / "a.safetensors", metadata)
        return open_concept(folder / "a.safetensors")

    return act


FORMAT = {"format": "promptseg.concept/1", "label": "mug", "model_id": "tiny"}
SHOT = {"image_size": [12, 9], "input_size": [12, 9], "cell_size": [6.0, 3.0]}
PARTS = {"shots.0.tokens": torch.ones(2, 3, 4), "shots.0.coverage": torch.ones(2, 3)}


def geometry(*shots: Any) -> dict[str, str]:
    return {**FORMAT, "geometry": json.dumps({"shots": list(shots), "negatives": []})}


add(
    "concept",
    CheckpointError,
    {
        name: written(data, "a.safetensors", open_concept)
        for name, data in {
            "empty": b"", "text": b"no concept", "image": PNG, "zeros": b"\0" * 100,
            "huge header": b"\xff" * 7 + b"\0{}",
        }.items()
    }
    | {
        "weights": concept({}),
        "other format": concept({}, format="promptseg.concept/99"),
        "no geometry": concept({}, **FORMAT),
        "geometry of text": concept({}, **FORMAT, geometry="x"),
        "geometry deep": concept({}, **FORMAT, geometry=DEEP.decode()),
        "geometry of numbers": concept({}, **FORMAT, geometry='{"shots": 3, "negatives": []}'),
        "no shots": concept({}, **geometry()),
        "shot without tensors": concept({}, **geometry(SHOT)),
        "no label": concept(PARTS, **{k: v for k, v in geometry(SHOT).items() if k != "label"}),
        "size 0": concept(PARTS, **geometry({**SHOT, "image_size": [0, 9]})),
        "size -1": concept(PARTS, **geometry({**SHOT, "input_size": [-1, 9]})),
        "size of text": concept(PARTS, **geometry({**SHOT, "cell_size": "x"})),
        "huge size": concept(PARTS, **geometry({**SHOT, "image_size": [10**12, 9]})),
        "tokens of bytes": concept(
            PARTS | {"shots.0.tokens": torch.ones(2, 3, 4, dtype=torch.uint8)}, **geometry(SHOT)
        ),
        "tokens of float8": concept(
            PARTS | {"shots.0.tokens": torch.ones(2, 3, 4).to(torch.float8_e4m3fn)},
            **geometry(SHOT),
        ),
        "tokens of NaN": concept(
            PARTS | {"shots.0.tokens": torch.full((2, 3, 4), torch.nan)}, **geometry(SHOT)
        ),
        "tokens flat": concept(PARTS | {"shots.0.tokens": torch.ones(24)}, **geometry(SHOT)),
        "coverage of another size": concept(
            PARTS | {"shots.0.coverage": torch.ones(3, 3)}, **geometry(SHOT)
        ),
        "coverage of nothing": concept(
            PARTS | {"shots.0.coverage": torch.zeros(2, 3)}, **geometry(SHOT)
        ),
        "mask that is no zlib": concept(
            PARTS | {"shots.0.mask": torch.zeros(9, dtype=torch.uint8)},
            **geometry({**SHOT, "mask_box": [0, 0, 3, 3]}),
        ),
        "mask outside": concept(
            PARTS | {"shots.0.mask": torch.zeros(9, dtype=torch.uint8)},
            **geometry({**SHOT, "mask_box": [0, 0, 99, 99]}),
        ),
        "preview of no PNG": concept(
            PARTS | {"preview.0": torch.zeros(9, dtype=torch.uint8)}, **geometry(SHOT)
        ),
    },
)  # fmt: skip
add(
    "concept: path",
    InputError,
    {
        "missing": lambda folder: open_concept(folder / "none.safetensors"),
        "folder": open_concept,
        "device": lambda _: open_concept("/dev/zero"),
        "pipe": piped("a.safetensors", open_concept),
        "NUL": lambda _: open_concept("a\0b"),
        "300 characters": lambda _: open_concept("x" * 300),
        "None": lambda _: open_concept(None),
        "number": lambda _: open_concept(3),
    },
)


# Logs of runs ------------------------------------------------------------------------------------

HEADER = json.dumps({RUN_KEY: {"text": ["cat"]}})
DONE = {"image": "/a.png", "folder": "a", "masks": 1, "error": "", "notes": []}


def log(*lines: str | bytes) -> Act:
    content = b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines)
    return written(
        content, RUN_FILE, lambda path: RunLog(path.parent, {"text": ["cat"]}, resume=True)
    )


def journal(path: Path) -> Any:
    return Journal(path, "header", {}, "delete the file").read(dict)


add(
    "run log",
    InputError,
    {
        "text": log("dear diary", "more"),
        "no header": log(json.dumps(DONE), json.dumps(DONE)),
        "header a list": log("[]", json.dumps(DONE)),
        "header deep": log(DEEP, json.dumps(DONE)),
        "other run": log(json.dumps({RUN_KEY: {"text": ["dog"]}}), json.dumps(DONE)),
        "not UTF-8": log(HEADER, b"\xff\xfe"),
        "broken line": log(HEADER, "{", json.dumps(DONE)),
        "line a list": log(HEADER, "[]"),
        "line a number": log(HEADER, "3"),
        "line deep": log(HEADER, DEEP),
        "lone surrogate": log(HEADER, '{"image": "\\ud800"}'),
        "pipe": piped(RUN_FILE, lambda path: RunLog(path.parent, {}, resume=True)),
        "pipe of a journal": piped("rows.jsonl", journal),
        "device": lambda _: journal(Path("/dev/zero")),
    }
    | {
        f"{key}: {json.dumps(value)}": log(HEADER, json.dumps({**DONE, key: value}))
        for key, value in [
            ("image", 3), ("image", None), ("folder", []), ("folder", {}), ("masks", "2"),
            ("masks", float("nan")), ("masks", float("inf")), ("masks", None), ("error", 3),
            ("notes", 3), ("notes", [3]), ("notes", None),
        ]
    },
)  # fmt: skip


# Data sets ---------------------------------------------------------------------------------------

ROW = {
    "image": "a.png", "mask": "m.png", "source": "s", "split": "dev",
    "regions": [{"label": "dog", "ids": [1], "instances": True}],
}  # fmt: skip
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 9}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}],
}


def index(content: Any) -> Act:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return written(data, "index.jsonl", lambda path: read_index(path.parent))


def coco(content: Any) -> Act:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()

    def act(folder: Path) -> Any:
        (folder / "a.png").write_bytes(PNG)
        return written(data, "coco.json", read_coco)(folder)

    return act


def changed(kind: str, **changes: Any) -> Act:
    return coco({**COCO, kind: [{**COCO[kind][0], **changes}]})


def shape(value: Any) -> Act:
    return lambda _: read_shape(json.dumps(value), SIZE, "it").draw()


add(
    "index.jsonl",
    InputError,
    {
        "empty": index(b""), "text": index(b"dear diary"), "not UTF-8": index(b"\xff\xfe"),
        "list": index([]), "deep": index(DEEP), "missing": read_index,
        "pipe": piped("index.jsonl", lambda path: read_index(path.parent)),
        "mask missing": lambda folder: index(ROW)(folder)[0].load_truth(),
    }
    | {
        f"{key}: {str(value)[:30]!r}": index({**ROW, key: value})
        for key in ("image", "mask", "source", "split")
        for value in (None, 3, [], "", "x" * 5000)
    }
    | {
        f"regions: {str(value)[:40]}": index({**ROW, "regions": value})
        for value in [
            None, 3, [3], [{}], [{"label": 3, "ids": [1], "instances": True}],
            [{"label": "dog", "ids": [300], "instances": True}],
            [{"label": "dog", "ids": "1", "instances": True}],
            [{"label": "dog", "ids": [1.5], "instances": True}],
            [{"label": "", "ids": [1], "instances": True}],
        ]
    },
)  # fmt: skip
add(
    "COCO",
    InputError,
    {
        "empty": coco(b""), "text": coco(b"x"), "list": coco([]), "empty object": coco({}),
        "deep": coco(b'{"images": ' + DEEP + b"}"), "no images": coco({**COCO, "images": []}),
        "no categories": coco({**COCO, "categories": []}),
        "missing": lambda folder: read_coco(folder / "none.json"),
        "device": lambda _: read_coco(Path("/dev/zero")),
        "pipe": piped("coco.json", read_coco),
        "photograph missing": coco({**COCO, "images": [{**COCO["images"][0], "file_name": "b"}]}),
        "height infinite": changed("images", height=float("inf")),
        "height 0": changed("images", height=0),
        "height of text": changed("images", height="12"),
        "width of 10**9": changed("images", width=10**9),
        "file name None": changed("images", file_name=None),
        "file name of 5000 characters": changed("images", file_name="x" * 5000),
        "file name with NUL": changed("images", file_name="\0"),
        "id a list": changed("images", id=[]),
        "name None": changed("categories", name=None),
        "name a number": changed("categories", name=3),
        "name empty": changed("categories", name=""),
        "unknown category": changed("annotations", category_id=9),
        "no segmentation": changed("annotations", segmentation=[]),
        "segmentation None": changed("annotations", segmentation=None),
        "two points": changed("annotations", segmentation=[[1, 2, 3, 4]]),
        "crowd of text": changed("annotations", iscrowd="yes"),
        "panoptic without file": changed("annotations", segments_info=[]),
    },
)  # fmt: skip
add(
    "shape",
    InputError,
    {
        str(value)[:40]: shape(value)
        for value in [
            None, "", 3, {}, [3], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]],
            [[float("nan")] * 6], [[float("inf")] * 6], [[1e13] * 6], [["1"] * 6],
            [[-1e9, 1, 1e9, 2] * 200_000],
            {"size": [12, 9]}, {"size": [12, 9], "counts": None}, {"size": [12, 9], "counts": ""},
            {"size": [12, 9], "counts": [1]}, {"size": [12, 9], "counts": [-1, 109]},
            {"size": [9, 12], "counts": [108]}, {"size": [12, 9], "counts": "P13700000l0"},
            {"size": [12, 9], "counts": "o" * 99}, {"size": [12, 9], "counts": "\u044f"},
        ]
    },
)  # fmt: skip


def exported(exporter: type[Any], name: str, content: bytes | None) -> Act:
    """Open a folder of an earlier export that has this file; without content it is a pipe."""

    def read(path: Path) -> Any:
        return exporter(path.parent)

    return piped(name, read) if content is None else written(content, name, read)


BOMB = b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (new, new, b", ".join([b"*%c" % old] * 8))
    for old, new in zip(b"abcdefgh", b"bcdefghi", strict=True)
)
add(
    "labels of an export",
    InputError,
    {
        f"data.yaml: {name}": exported(YoloExporter, "data.yaml", content)
        for name, content in {
            "pipe": None, "not UTF-8": b"\xff\xfe", "list": b"[1, 2]", "no YAML": b"{",
            "bomb": BOMB, "alias": b"names: &a [x]\nothers: *a\n",
            "object": b"!!python/object/apply:os.system ['true']",
            "deep": b"names: " + b"[" * 5000, "names a number": b"names: 3",
            "names with gaps": b"names: {0: a, 7: b}", "names twice": b"names: [a, a]",
        }.items()
    }
    | {
        f"labels.txt: {name}": exported(VocExporter, "labels.txt", content)
        for name, content in {
            "pipe": None, "not UTF-8": b"\xff\xfe", "no background first": b"cat\ndog\n",
            "a byte order mark first": b"\xef\xbb\xbfcat\n", "a class twice": b"\ncat\ncat\n",
        }.items()
    }
    | {
        f"annotations.json: {name}": exported(CocoExporter, "annotations.json", content)
        for name, content in {
            "id a text": b'{"images": [{"id": "1", "file_name": "a"}]}',
            "id a fraction": b'{"images": [{"id": 1.5, "file_name": "a"}]}',
            "height a text": b'{"images": [{"id": 1, "file_name": "a", "height": "x"}]}',
            "name a number": b'{"categories": [{"id": 1, "name": 3}]}',
            "polygon of text":
                b'{"annotations": [{"id": 1, "image_id": 1, "segmentation": [["a"]]}]}',
            "area infinite": b'{"annotations": [{"id": 1, "image_id": 1, "area": Infinity}]}',
            "images an object": b'{"images": {}}', "annotations a number": b'{"annotations": 3}',
            "annotation a text": b'{"annotations": ["x"]}', "deep": b"[" * 100000,
        }.items()
    },
)  # fmt: skip


# Odd, and answered -------------------------------------------------------------------------------


@functools.cache
def pocket() -> Any:
    return promptseg.load("pocket")


@functools.cache
def grey() -> Any:
    return pocket().encode_image(np.full((48, 64, 3), 128, np.uint8))


def on_grey(**query: Any) -> Act:
    return lambda _: pocket()(grey(), **query)


def on(pixels: Any, **query: Any) -> Act:
    return lambda _: pocket()(pixels, **query)


add(
    "odd: nothing found",
    NOTHING,
    {
        "grey": on_grey(text="cat"),
        "other script": on_grey(text="\u043a\u043e\u0448\u043a\u0430"),
        "signs": on_grey(text="!? \u2603"),
        "no word": on_grey(text="xqzzyk"),
        "1000 letters": on_grey(text="x" * 1000),
        "100 phrases": on_grey(text=[f"cat {i}" for i in range(100)]),
        "one pixel": on(RGB[:1, :1], text="cat"),
    },
)
add(
    "marks",
    InputError,
    {"background clicks alone": on_grey(points=[(5, 5)], point_labels=[0])},
)
add(
    "odd: answered",
    ANSWER,
    {
        "click on grey": on_grey(points=[(5, 5)]),
        "click at the corner": on_grey(points=[(63, 47)]),
        "box of one pixel": on_grey(boxes=[(3, 3, 4, 4)]),
        "box without area": on_grey(boxes=[(3, 3, 3, 3)]),
        "box partly outside": on_grey(boxes=[(50, 30, 500, 300)]),
        "one row": on(RGB[:1], points=[(5, 0)]),
    },
)


# The tests ---------------------------------------------------------------------------------------


@contextmanager
def in_time() -> Iterator[None]:
    """Fail instead of waiting for ever for what never comes."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done within {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")  # of decoders and unpicklers; what comes of it is what counts
@pytest.mark.parametrize(
    ("kind", "name", "act", "expected"),
    CASES,
    ids=[f"{kind}-{name}".encode("ascii", "backslashreplace").decode() for kind, name, *_ in CASES],
)
def test_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, act: Act, expected: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with in_time():
        check(tmp_path, monkeypatch, kind, act, expected)


def check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, act: Act, expected: Any
) -> None:
    if expected == NOTHING:
        assert len(act(folder)) == 0
    elif expected == ANSWER:
        found = act(folder)
        assert all(mask.dtype == bool for mask in found.masks)
        assert np.isfinite(found.scores).all()
    elif expected == REFUSED:
        if kind == "options: concepts":
            monkeypatch.setattr(ModelOptions, "load", lambda _: pocket())
        elif kind != "options: models":
            monkeypatch.setattr(ModelOptions, "load", lambda _: Stub())
        done = act(folder)
        assert done.exit_code == 2, done.output
        assert isinstance(done.exception, SystemExit)
        assert "Traceback" not in done.output
        told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        # Typer tells the wrong use of an option in a box; all else is one line.
        assert "Usage:" in done.stderr or len(told) == len(done.stderr.splitlines()) == 1
    else:
        with pytest.raises(expected) as caught:
            act(folder)
        message = str(caught.value)
        assert isinstance(caught.value, PromptsegError)
        assert message.strip()
        assert "\n" not in message
        assert len(message) < 1000


def test_the_zoo_is_large(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts them, by kind: `pytest -s tests/zoo -k large`."""
    kinds = Counter(kind for kind, *_ in CASES)
    assert len({(kind, name) for kind, name, *_ in CASES}) == len(CASES)
    lines = [f"zoo: {len(CASES)} inputs", *(f"{n:6} {kind}" for kind, n in kinds.items())]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert len(CASES) >= 200
    for kind in ("image", "text", "marks", "options", "checkpoint", "concept", "run log", "COCO"):
        assert sum(number for name, number in kinds.items() if name.startswith(kind)) >= 10
