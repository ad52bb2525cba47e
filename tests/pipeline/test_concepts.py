"""Concept files: what is saved comes back; what is wrong with a file is said on one line."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

import promptseg
from promptseg.models.errors import CheckpointError, InputError, PromptsegError
from promptseg.models.features.dense import DenseFeatures
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.prompters.reference import concepts
from promptseg.pipeline.prompters.reference.concepts import (
    draw_preview,
    load_concept,
    open_concept,
    save_concept,
)
from promptseg.pipeline.prompters.reference.examples import EncodedReference, Shot

MASK = np.zeros((40, 60), bool)
MASK[10:31, 20:45] = True
MASK[12, 22] = False


def make_shot(seed: int = 0, *, channels: int = 48, known: bool = True) -> Shot:
    generator = torch.Generator().manual_seed(seed)
    features = DenseFeatures(
        tokens=torch.randn(4, 6, channels, generator=generator),
        image_size=(40, 60),
        input_size=(34, 51),
        cell_size=(10.3, 10.4),
        model_id="tiny",
    )
    mask = CompactMask.of(MASK) if known else None
    return Shot(features, features.cell_coverage(MASK), mask)


def make_concept() -> EncodedReference:
    shots = make_shot(0), make_shot(1, known=False)
    part = make_shot(2, known=False)
    tiny = Shot(part.features, part.coverage, CompactMask.of(MASK), whole=make_shot(3).features)
    return EncodedReference("my mug", shots, negatives=(tiny,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mug.safetensors"


def parts(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_what_is_saved_comes_back(path: Path) -> None:
    saved = make_concept()
    save_concept(path, saved)
    loaded = load_concept(path, model_id="tiny")
    assert loaded.label == "my mug"
    assert loaded.model_id == "tiny"
    for group in ("shots", "negatives"):
        for old, new in zip(getattr(saved, group), getattr(loaded, group), strict=True):
            assert new.features.tokens.dtype == torch.float32
            torch.testing.assert_close(new.features.tokens, old.features.tokens.half().float())
            torch.testing.assert_close(new.coverage, old.coverage, rtol=0, atol=0)
            for name in ("image_size", "input_size", "cell_size", "model_id"):
                assert getattr(new.features, name) == getattr(old.features, name)
            assert (new.mask is None) == (old.mask is None)
            if new.mask is not None:
                np.testing.assert_array_equal(new.mask.full(), MASK)
                assert new.mask.area == MASK.sum()
    whole = saved.negatives[0].whole.tokens
    torch.testing.assert_close(loaded.negatives[0].whole.tokens, whole.half().float())
    assert loaded.shots[0].whole is None


def test_half_precision_keeps_the_order_of_cosines(path: Path) -> None:
    """Of cells whose cosines differ by more than 1e-3."""
    generator = torch.Generator().manual_seed(3)
    target = F.normalize(torch.randn(500, 384, generator=generator), dim=1)
    shot = make_shot(channels=384)
    save_concept(path, EncodedReference("mug", (shot,)))
    (loaded,) = load_concept(path).shots
    before, after = (
        F.normalize(s.features.tokens.flatten(0, 1), dim=1) @ target.T for s in (shot, loaded)
    )
    assert (before - after).abs().max() < 1e-4
    order = before.argsort(dim=1)
    gaps = before.gather(1, order).diff(dim=1) > 1e-3
    assert gaps.float().mean() > 0.05
    assert (after.gather(1, order).diff(dim=1)[gaps] > 0).all()


def test_values_beyond_half_precision_are_kept(path: Path) -> None:
    shot = make_shot()
    shot = replace(shot, features=replace(shot.features, tokens=shot.features.tokens * 1e6))
    save_concept(path, EncodedReference("mug", (shot,)))
    (loaded,) = load_concept(path).shots
    torch.testing.assert_close(loaded.features.tokens, shot.features.tokens, rtol=0, atol=0)


def test_metadata_and_previews_are_plain(path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    mask = np.zeros((400, 600), bool)
    mask[:, 300:] = True
    preview = draw_preview(image, mask)
    assert preview.shape == (107, 160, 3)
    # Block means of noise are about grey; where the object is not they are a quarter as bright.
    assert preview[:, 82:].mean() == pytest.approx(127, abs=2)
    assert preview[:, :78].mean() == pytest.approx(127 / 4, abs=2)
    assert draw_preview(image[:3, :5], mask[:3, :5]).shape == (3, 5, 3)
    save_concept(path, make_concept(), [preview, preview[:, :50]])
    concept = open_concept(path)
    assert [p.shape for p in concept.previews] == [(107, 160, 3), (107, 50, 3)]
    np.testing.assert_array_equal(concept.previews[0], preview)
    assert concept.version == promptseg.__version__
    tensors, metadata = parts(path)
    assert metadata["format"] == "promptseg.concept/1"
    assert json.loads(metadata["geometry"])["shots"][0]["image_size"] == [40, 60]
    assert Image.open(io.BytesIO(tensors["preview.0"].numpy().tobytes())).format == "PNG"
    assert tensors["shots.0.tokens"].dtype == torch.float16


def test_a_file_is_written_as_a_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = path.parent / "new" / path.name
    save_concept(deep, make_concept())
    assert [p.name for p in deep.parent.iterdir()] == [deep.name]
    before = deep.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save_concept(deep, EncodedReference("other", (make_shot(5),)))
    assert deep.read_bytes() == before
    assert [p.name for p in deep.parent.iterdir()] == [deep.name]


def test_another_models_concept_is_refused_with_the_remedy(path: Path) -> None:
    save_concept(path, make_concept())
    with pytest.raises(InputError, match=r"made by 'tiny', and features of 'dino' .*concept save"):
        load_concept(path, model_id="dino")
    with pytest.raises(InputError, match=r"mug.txt'?: a concept file must end in .safetensors"):
        save_concept(path.with_suffix(".txt"), make_concept())


def as_bytes(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def huge_png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (5000, 5000)).save(stream, "PNG")
    return stream.getvalue()


def broken(path: Path) -> dict[str, object]:
    """Ways to spoil a good file."""
    save_concept(path, make_concept(), [np.zeros((5, 5, 3), np.uint8)])
    good = path.read_bytes()
    tensors, metadata = parts(path)
    geometry = json.loads(metadata["geometry"])

    def doctored(**changes: object) -> bytes:
        new = {**tensors, **changes.get("tensors", {})}
        kept = {name: x for name, x in new.items() if x is not None}
        save_file(kept, path, {**metadata, **changes.get("metadata", {})})
        return path.read_bytes()

    def resized(**sizes: object) -> dict[str, dict[str, str]]:
        first = {**geometry["shots"][0], **sizes}
        shots = {**geometry, "shots": [first, *geometry["shots"][1:]]}
        return {"metadata": {"geometry": json.dumps(shots)}}

    nan = torch.full_like(tensors["shots.0.tokens"], torch.nan)
    return {
        "text": b"this is no concept\n" * 100,
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "header cut": good[:20],
        "a tensor is missing": doctored(tensors={"shots.0.tokens": None}),
        "coverage of another grid": doctored(tensors={"shots.0.coverage": torch.ones(2, 2)}),
        "no object": doctored(tensors={"shots.0.coverage": torch.zeros(4, 6)}),
        "tokens in 8 bits": doctored(tensors={"shots.0.tokens": nan.to(torch.float8_e4m3fn)}),
        "complex tokens": doctored(tensors={"shots.0.tokens": nan.to(torch.complex64)}),
        "whole numbers": doctored(tensors={"shots.0.coverage": torch.ones(4, 6, dtype=torch.int8)}),
        "a mask that inflates": doctored(
            tensors={"shots.0.mask": as_bytes(zlib.compress(bytes(10**7)))}
        ),
        "a preview that inflates": doctored(tensors={"preview.0": as_bytes(huge_png())}),
        "nested deeply": doctored(metadata={"geometry": "[" * 100_000}),
        "larger than any picture": doctored(**resized(image_size=[10**9, 10**9])),
        "not finite": doctored(tensors={"shots.0.tokens": nan}),
        "mask is noise": doctored(tensors={"shots.0.mask": torch.arange(50, dtype=torch.uint8)}),
        "preview is noise": doctored(tensors={"preview.0": torch.arange(50, dtype=torch.uint8)}),
        "geometry is no JSON": doctored(metadata={"geometry": "{"}),
        "geometry is a list": doctored(metadata={"geometry": "[]"}),
        "no examples": doctored(metadata={"geometry": '{"shots": [], "negatives": []}'}),
        "sizes are words": doctored(**resized(image_size=["a", "b"])),
        "sizes are negative": doctored(**resized(cell_size=[-1, 3])),
        "sizes are infinite": doctored(**resized(cell_size=[1e999, 3])),
        "box elsewhere": doctored(**resized(mask_box=[0, 0, 900, 900])),
        "box too large": doctored(**resized(mask_box=[0, 0, 60, 40])),
    }


def test_damaged_files_are_refused(path: Path) -> None:
    for name, content in broken(path).items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            load_concept(path)
        message = str(caught.value)
        assert str(path) in message, name
        assert "save the concept again" in message, name
        assert "\n" not in message, name


def test_files_of_others_are_refused(path: Path) -> None:
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="is a safetensors file, but no concept"):
        load_concept(path)
    save_file({"x": torch.zeros(3)}, path, {"format": "promptseg.concept/9"})
    with pytest.raises(CheckpointError, match=r"'promptseg.concept/9', this .* save the concept"):
        load_concept(path)
    for missing in (path.with_name("none.safetensors"), path.parent):
        with pytest.raises(InputError, match=r"there is no concept .*promptseg concept save"):
            load_concept(missing)
    assert issubclass(CheckpointError, PromptsegError)
    for odd in (3, None, "a\0.safetensors"):
        with pytest.raises(InputError, match="is not the path of a concept file"):
            load_concept(odd)
        with pytest.raises(InputError, match="is not the path of a concept file"):
            save_concept(odd, make_concept())
    with pytest.raises(InputError, match="there is no concept"):
        load_concept("x" * 300)
    with pytest.raises(InputError, match="there is no concept"):
        load_concept("/dev/zero")


def test_the_format_is_named_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs/references.md").read_text(encoding="utf-8")
    assert concepts.FORMAT in text
