"""Damaged files through every reader: an answer of bounded size, or a documented error of one line.

Each reader gets documents whose values are replaced by odd ones (hypothesis) and files whose bytes
are flipped, cut, doubled and moved (a fixed seed). `make fuzz` tries many more than `make test`.
"""

from __future__ import annotations

import copy
import io
import json
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import save_file

from promptseg.apps.cli.run_summary import RUN_FILE, RUN_KEY, Entry, RunLog
from promptseg.apps.evaluation.coco_dataset import read_coco
from promptseg.apps.evaluation.index_folder import read_index, read_index_collection
from promptseg.apps.evaluation.shapes import read_shape
from promptseg.models.checkpoint import read_state_dict
from promptseg.models.errors import PromptsegError
from promptseg.models.features.dense import DenseFeatures
from promptseg.models.hub.find import is_whole
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.images import load_image, load_mask
from promptseg.pipeline.prompters.reference.concepts import open_concept, save_concept
from promptseg.pipeline.prompters.reference.examples import EncodedReference, Shot
from promptseg.pipeline.result import Result
from promptseg.pipeline.saving import write_outputs

SIZE = (12, 9)
# Inputs of each reader: so many of either kind, 500 together.
COUNT = int(os.environ.get("PROMPTSEG_FUZZ", "500"))
DOCUMENTS = COUNT * 2 // 5
LONGEST_MESSAGE = 2000
MOST_BYTES_MORE = 400_000_000
MOST_PIXELS = 2 * 89_478_485

MASK = np.zeros(SIZE, bool)
MASK[2:9, 3:7] = True


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        name: File that is damaged.
        seeds: Whole contents of it, each to be damaged.
        read: Reads the file, from its path.
        document: A whole content as JSON, whose values are replaced; None for other formats.
        dump: Writes such a document.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    document: Any = None
    dump: Callable[[Any], str] = json.dumps


# Odd values --------------------------------------------------------------------------------------

DELETE, DEEP = "\0delete", "\0deep"
LEAVES = st.one_of(
    st.sampled_from([
        None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, -1e308,
        1e-9, float("nan"), float("inf"), float("-inf"), "", " ", "x", "x" * 5000, "1", "a\\b",
        "../../etc/passwd", "/dev/zero", "\ud800", "\x00", "\u202e", "dog, cat", DELETE, DEEP,
        [], {}, [[]], {"": None}, [0] * 300,
    ]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)  # fmt: skip
VALUES = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=7),
    st.dictionaries(st.sampled_from(["id", "size", "counts", "label", "name"]), LEAVES, max_size=3),
)


def slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: container and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from slots(inner)


def replaced(document: Any, changes: list[tuple[int, Any]]) -> Any:
    document = {"": copy.deepcopy(document)}
    for number, value in changes:
        places = list(slots(document))
        if not places:
            continue
        container, key = places[number % len(places)]
        if value == DELETE:
            del container[key]
        else:
            container[key] = copy.deepcopy(value)
    return document.get("")


def documents(reader: Reader) -> st.SearchStrategy[bytes]:
    changes = st.lists(st.tuples(st.integers(0, 2**16), VALUES), min_size=1, max_size=3)

    def write(chosen: list[tuple[int, Any]]) -> bytes:
        text = reader.dump(replaced(reader.document, chosen))
        return text.replace(json.dumps(DEEP), "[" * 20_000 + "]" * 20_000).encode()

    return changes.map(write)


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, double, move or overwrite bytes; the first ones, where headers are, most often."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
        at = int(rng.integers(reach))
        length = int(rng.integers(1, 1 + min(16, len(data))))
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.integers(256))
        elif kind == 2:
            del data[int(rng.integers(len(data))) :]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            data[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        else:
            odd = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"9" * 12, b"-1", b"null"]
            data[at : at + 4] = odd[int(rng.integers(len(odd)))]
    return bytes(data)


# Readers -----------------------------------------------------------------------------------------


def as_png(pixels: np.ndarray) -> bytes:
    return as_image("PNG", pixels)


def as_image(form: str, pixels: np.ndarray, mode: str = "", **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


def index_reader(folder: Path) -> Reader:
    ids = np.where(MASK, 1, 0).astype(np.uint8)
    (folder / "ids.png").write_bytes(as_png(ids))
    row = {
        "image": "a.png", "mask": "ids.png", "source": "mine", "split": "dev", "licence": "CC0",
        "regions": [
            {"label": "dog", "ids": [1, 2], "instances": True, "thing": True},
            {"label": "sky", "ids": [0], "instances": False},
        ],
    }  # fmt: skip
    rows = [row, {**row, "image": "b.png", "regions": row["regions"][1:]}]

    def dump(document: Any) -> str:
        lines = document if isinstance(document, list) else [document]
        return "\n".join(map(json.dumps, lines))

    def read(path: Path) -> None:
        try:
            read_index(path.parent)
        except PromptsegError as error:
            check_message(error)
        collection = read_index_collection(path.parent, "dev")
        assert all("\n" not in line for line in collection.skipped.named)
        for picture in collection.pictures[:5]:
            check_truth(picture.load_truth())

    return Reader("index.jsonl", (dump(rows).encode(),), read, rows, dump)


def check_truth(truth: Any) -> None:
    for target in (*truth.objects, *truth.classes):
        assert target.mask.shape == truth.valid.shape
        assert target.mask.dtype == bool


def coco_document() -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(MASK, np.uint8))
    shapes = [
        [[1, 1, 8, 1, 8, 10, 1, 10.5]],
        {"size": list(SIZE), "counts": rle["counts"].decode()},
        {"size": list(SIZE), "counts": [20, 8, 80]},
    ]
    return {
        "info": {"year": 2026},
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]}
            for number in (1, 2)
        ],
        "categories": [
            {"id": 1, "name": "dog", "supercategory": "animal", "isthing": 1},
            {"id": 2, "name": "sky-other", "supercategory": "sky", "isthing": 0},
        ],
        "annotations": [
            {"id": i, "image_id": 1 + i % 2, "category_id": 1, "iscrowd": i // 2, "area": 3,
             "segmentation": shape}
            for i, shape in enumerate(shapes)
        ],
    }  # fmt: skip


def read_collection(path: Path) -> None:
    collection = read_coco(path)
    assert all("\n" not in line for line in collection.skipped.named)
    assert all(isinstance(name, str) for names in collection.vocabulary.values() for name in names)
    for picture in collection.pictures:
        check_truth(picture.load_truth())


def coco_reader(folder: Path) -> Reader:
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(as_png(np.zeros(SIZE, np.uint8)))
    document = coco_document()
    return Reader("coco.json", (json.dumps(document).encode(),), read_collection, document)


def panoptic_reader(folder: Path) -> Reader:
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[MASK] = 7, 1, 0
    for name in ("1.jpg", "1.png"):
        (folder / name).write_bytes(as_png(ids))
    document = coco_document()
    document["images"] = [
        {"id": 1, "file_name": "1.jpg", "height": SIZE[0], "width": SIZE[1]},
    ]
    document["annotations"] = [
        {
            "image_id": 1,
            "file_name": "1.png",
            "segments_info": [{"id": 263, "category_id": 1, "iscrowd": 0}],
        }
    ]
    return Reader("panoptic.json", (json.dumps(document).encode(),), read_collection, document)


def panoptic_png_reader(folder: Path) -> Reader:
    made = panoptic_reader(folder)
    (folder / "panoptic.json").write_bytes(made.seeds[0])
    return Reader(
        "1.png",
        ((folder / "1.png").read_bytes(),),
        lambda path: read_collection(path.parent / "panoptic.json"),
    )


def ids_reader(folder: Path) -> Reader:
    made = index_reader(folder)
    (folder / "index.jsonl").write_bytes(made.seeds[0])
    return Reader(
        "ids.png", ((folder / "ids.png").read_bytes(),), lambda path: made.read(folder / made.name)
    )


def read_drawn(path: Path) -> None:
    mask = read_shape(path.read_bytes(), SIZE, "it").draw()
    assert mask.shape == SIZE
    assert mask.dtype == bool


def rle_reader(folder: Path) -> Reader:
    shapes = [annotation["segmentation"] for annotation in coco_document()["annotations"][1:]]
    return Reader("rle.json", tuple(json.dumps(s).encode() for s in shapes), read_drawn, shapes[1])


def polygon_reader(folder: Path) -> Reader:
    polygons = [[1, 1, 8, 1, 8, 10, 1, 10.5], [-4.5, 2, 20, 3, 5, 1e3]]
    return Reader("polygons.json", (json.dumps(polygons).encode(),), read_drawn, polygons)


def concept_reader(folder: Path) -> Reader:
    generator = torch.Generator().manual_seed(0)
    features = DenseFeatures(
        tokens=torch.randn(2, 3, 4, generator=generator),
        image_size=SIZE,
        input_size=SIZE,
        cell_size=(6.0, 3.0),
        model_id="tiny",
    )
    shot = Shot(features, features.cell_coverage(MASK), CompactMask.of(MASK))
    preview = np.zeros((4, 4, 3), np.uint8)
    save_concept(folder / "a.safetensors", EncodedReference("mug", (shot,)), [preview])

    def read(path: Path) -> None:
        concept = open_concept(path)
        for item in concept.encoded.shots:
            assert bool(item.features.tokens.isfinite().all())
            if item.mask is not None:
                assert item.mask.full().shape == item.picture.image_size
        assert all(preview.ndim == 3 for preview in concept.previews)

    return Reader("a.safetensors", ((folder / "a.safetensors").read_bytes(),), read)


def weights() -> dict[str, torch.Tensor]:
    return {"block.weight": torch.arange(6.0).reshape(2, 3), "block.bias": torch.ones(2).half()}


def read_checkpoint(path: Path) -> None:
    state = read_state_dict(path)
    assert state
    assert all(isinstance(name, str) for name in state)
    assert sum(tensor.numel() for tensor in state.values()) < 10_000


def safetensors_reader(folder: Path) -> Reader:
    save_file(weights(), folder / "a.safetensors")

    def read(path: Path) -> None:
        is_whole(path)
        read_checkpoint(path)

    return Reader("a.safetensors", ((folder / "a.safetensors").read_bytes(),), read)


def pytorch_reader(folder: Path) -> Reader:
    seeds = []
    for zipped in (True, False):
        torch.save(weights(), folder / "a.pt", _use_new_zipfile_serialization=zipped)
        seeds.append((folder / "a.pt").read_bytes())

    def read(path: Path) -> None:
        is_whole(path)
        read_checkpoint(path)

    return Reader("a.pt", tuple(seeds), read)


def shards_reader(folder: Path) -> Reader:
    for name, tensor in weights().items():
        save_file({name: tensor}, folder / f"{name}.safetensors")
    document = {
        "metadata": {"total_size": 28},
        "weight_map": {name: f"{name}.safetensors" for name in weights()},
    }
    name = "model.safetensors.index.json"
    return Reader(name, (json.dumps(document).encode(),), read_checkpoint, document)


def run_log_reader(folder: Path) -> Reader:
    asked = {"preset": "pocket", "text": ["cat"]}
    entries = [asdict(Entry("/a.png", "a", 2)), asdict(Entry("/b.png", "b", 0, "bad", ("note",)))]

    def dump(document: Any) -> str:
        return "".join(json.dumps(line) + "\n" for line in document)

    def dump_lines(document: Any) -> str:
        return dump([{RUN_KEY: asked}, *(document if isinstance(document, list) else [document])])

    def read(path: Path) -> None:
        for entry in RunLog(path.parent, asked, resume=True).entries.values():
            again = json.loads(json.dumps(asdict(entry), allow_nan=False))
            assert isinstance(again["masks"], int)
            assert all(isinstance(again[key], str) for key in ("image", "folder", "error"))
            assert all(isinstance(note, str) for note in again["notes"])

    return Reader(RUN_FILE, (dump_lines(entries).encode(),), read, entries, dump_lines)


def result_reader(folder: Path) -> Reader:
    empty = np.zeros(0, np.float32)
    result = Result.of(
        masks=np.zeros((0, *SIZE), bool),
        labels=[],
        scores=empty,
        iou_predictions=empty,
        stability_scores=empty,
        prompt_scores=empty,
    )
    image = np.zeros((*SIZE, 3), np.uint8)
    document = {"files": {"masks": ["mask_01_cat.png"], "overlay": "overlay.png"}, "masks": []}
    kept = [folder / "mine.png", folder.parent / "mine.png"]
    for path in kept:
        path.write_bytes(b"")

    def read(path: Path) -> None:
        write_outputs(path.parent, image, result, {"files": {"masks": []}})
        assert all(path.exists() for path in kept)

    return Reader("result.json", (json.dumps(document).encode(),), read, document)


RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def image_seeds() -> tuple[bytes, ...]:
    return (
        as_png(RGB),
        as_png(MASK.astype(np.uint8) * 255),
        as_image("PNG", RGB, "P"),
        as_image("PNG", RGB, "LA"),
        as_png(RGB[..., 0].astype(np.uint16) * 200),
        as_image("JPEG", RGB),
        as_image("BMP", RGB),
        as_image("GIF", RGB, "P"),
        as_image("PPM", RGB),
        as_image("TIFF", RGB, compression="tiff_lzw"),
        as_image("TIFF", RGB[..., 0].astype(np.float32)),
        as_image("WEBP", RGB),
        as_image("JPEG2000", RGB),
    )


def image_reader(folder: Path) -> Reader:
    def read(path: Path) -> None:
        pixels = load_image(path)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS

    return Reader("a.img", image_seeds(), read)


def mask_reader(folder: Path) -> Reader:
    def read(path: Path) -> None:
        mask = load_mask(path)
        assert mask.dtype == bool
        assert mask.ndim == 2
        assert mask.size <= MOST_PIXELS

    return Reader("a.img", image_seeds(), read)


MAKERS: dict[str, Callable[[Path], Reader]] = {
    "index.jsonl": index_reader,
    "region ids": ids_reader,
    "COCO instances": coco_reader,
    "COCO panoptic": panoptic_reader,
    "panoptic PNG": panoptic_png_reader,
    "RLE": rle_reader,
    "polygons": polygon_reader,
    "concept": concept_reader,
    "safetensors": safetensors_reader,
    "PyTorch file": pytorch_reader,
    "shard index": shards_reader,
    "run.jsonl": run_log_reader,
    "result.json": result_reader,
    "image": image_reader,
    "mask": mask_reader,
}


def check_message(error: PromptsegError) -> None:
    message = str(error)
    assert message.strip()
    assert "\n" not in message
    assert len(message) <= LONGEST_MESSAGE, message[:300]


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# A damaged file may make PyTorch or Pillow warn; what counts is what comes of it.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAKERS)
def test_damaged_files_give_an_answer_or_a_documented_error(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = MAKERS[name](folder)
    path = folder / reader.name
    tried = 0

    def check(content: bytes) -> None:
        nonlocal tried
        tried += 1
        path.write_bytes(content)
        try:
            reader.read(path)
        except PromptsegError as error:
            check_message(error)

    for seed in reader.seeds:
        path.write_bytes(seed)
        reader.read(path)  # whole, it is read
    before = peak()
    if reader.document is not None:
        settings(
            max_examples=DOCUMENTS,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(documents(reader))(check))()
    rng = np.random.default_rng(list(name.encode()))
    while tried < COUNT:
        check(damage(reader.seeds[tried % len(reader.seeds)], rng))
    assert tried >= COUNT
    if name not in ("image", "mask"):  # these have a limit on pixels instead
        assert peak() - before < MOST_BYTES_MORE
