"""`promptseg concept save | show` with the pocket preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from promptseg.apps.cli.options import ModelOptions
from promptseg.pipeline.prompters.reference.concepts import open_concept


@pytest.fixture(autouse=True)
def loaded(loads, pocket):
    """The options of each load; what is loaded is pocket."""
    return loads(pocket).options


def test_a_concept_is_saved_and_told_of(run, shown) -> None:
    image, mask = shown("red")
    done = run("concept", "save", "my mug", "--reference", image, "--mask", mask)
    assert done.exit_code == 0, done.output
    assert done.stdout == "my mug: 1 example by pocket, in my mug.safetensors\n"
    assert done.stderr == ""
    concept = open_concept("my mug.safetensors")
    assert concept.encoded.label == "my mug"
    np.testing.assert_array_equal(
        concept.encoded.shots[0].mask.full(), np.asarray(Image.open(mask)) > 0
    )
    told = run("concept", "show", "my mug", "--preview", "preview.png")
    assert told.exit_code == 0, told.output
    first, second = told.stdout.splitlines()
    assert first.startswith("my mug: 1 example by pocket, ")
    assert second == "  1: 96 x 96 pixels, 32 x 32 cells, 11.1% of them the object"
    preview = np.asarray(Image.open("preview.png").convert("RGB"))
    assert preview.shape == (96, 96, 3)
    np.testing.assert_array_equal(preview[48, 48], np.asarray(Image.open(image))[48, 48])
    assert preview[0, 0].max() < 40


def test_only_concepts_are_replaced(run, shown) -> None:
    image, mask = shown("red")
    save = ("concept", "save", "mug", "--reference", image, "--mask", mask)
    for _ in range(2):  # a concept may be saved again
        assert run(*save).exit_code == 0
    show = ("concept", "show", "mug", "--preview", mask)
    other = Path("other.safetensors")
    save_file({"weights": torch.zeros(3)}, other)
    before = {path: Path(path).read_bytes() for path in (mask, other)}
    for command, path in (((*save, "--out", other), other), (show, mask)):
        done = run(*command)
        assert done.exit_code == 2
        assert "is there already; name another file" in done.stderr
        assert Path(path).read_bytes() == before[path]
        done = run(*command, "--overwrite")
        assert done.exit_code == 0, done.output
        assert Path(path).read_bytes() != before[path]


def test_regions_of_unlike_kinds_go_to_pictures_in_order(run, shown, tmp_path) -> None:
    red, mask = shown("red")
    blue, _ = shown("blue")
    out = tmp_path / "new" / "two.safetensors"
    done = run(
        "concept", "save", "thing", "--box", "32,32,63,63", "--reference", red, "--reference", blue,
        "--mask", mask, "--point", "48,48", "--reference", red, "--out", out,
        "--preset", "base", "--device", "cuda:1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout == f"thing: 3 examples by pocket, in {out}\n"
    concept = open_concept(out)
    areas = [shot.mask.area for shot in concept.encoded.shots]
    assert areas[1] == 32 * 32  # the mask is the second region
    assert 32 * 32 not in (areas[0], areas[2])
    assert len(concept.previews) == 3
    told = run("concept", "show", out)
    assert len(told.stdout.splitlines()) == 4


def test_the_preset_and_the_device_are_asked_for(run, shown, loaded) -> None:
    image, mask = shown("red")
    run("concept", "save", "a", "--reference", image, "--mask", mask, "--preset", "base",
        "--device", "cuda:1")  # fmt: skip
    assert loaded == [ModelOptions("base", "cuda:1")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mug"], "show what the concept is: give --reference IMAGE with --mask, --box or --point"),
        (["mug", "--mask", "MASK"], "--reference: 0 images and 1 region; give each image one"),
        (["mug", "--reference", "IMAGE"], "--reference: 1 image and 0 regions"),
        (["mug", "--reference", "IMAGE", "--box", "1,2,3"], "--box: '1,2,3' is not X0,Y0,X1,Y1"),
        (["mug", "--reference", "IMAGE", "--point", "1,2,3"], "--point: '1,2,3' is not X,Y in"),
        (["mug", "--reference", "IMAGE", "--point", "500,2"], "lies outside the image"),
        (["mug", "--reference", "no.jpg", "--point", "5,2"], "'no.jpg' does not exist"),
        (["mug", "--reference", "IMAGE", "--mask", "no.png"], "'no.png' does not exist"),
        ([" ", "--reference", "IMAGE", "--mask", "MASK"], "the concept's name is empty"),
        (["a/b", "--reference", "IMAGE", "--mask", "MASK"], "'a/b' cannot be a file's name; give"),
        (
            ["mug", "--reference", "IMAGE", "--mask", "MASK", "--out", "mug.txt"],
            "--out: 'mug.txt' must end in .safetensors",
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_models_are_loaded(
    run, shown, loaded, arguments: list[str], says: str
) -> None:
    image, mask = shown("red")
    names = {"IMAGE": str(image), "MASK": str(mask)}
    done = run("concept", "save", *(names.get(item, item) for item in arguments))
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert loaded == []
    assert list(Path().iterdir()) == []


def test_masks_that_show_no_object_are_refused(run, shown) -> None:
    image, _ = shown("red")
    for pixels, says in (
        (np.zeros((96, 96), np.uint8), "the reference's mask is empty"),
        (np.ones((96, 96), np.uint8), "covers the whole image"),
        (np.ones((40, 50), np.uint8), "mask is 50 x 40 pixels and its image 96 x 96"),
    ):
        Image.fromarray(pixels).save("mask.png")
        done = run("concept", "save", "mug", "--reference", image, "--mask", "mask.png")
        assert done.exit_code == 2
        assert done.stderr.startswith(f"error: the reference {str(image)!r}: the reference's mask")
        assert says in done.stderr
        assert not Path("mug.safetensors").exists()


def test_what_is_no_concept_is_said_on_one_line(run) -> None:
    Path("text.safetensors").write_text("nothing", encoding="utf-8")
    save_file({}, "other.safetensors")
    for name, says in (
        ("text", "'text.safetensors' cannot be read as a concept file"),
        ("other.safetensors", "is a safetensors file, but no concept"),
        ("none", "there is no concept 'none.safetensors'"),
        ("folder/none", "there is no concept 'folder/none'"),
    ):
        done = run("concept", "show", name)
        assert done.exit_code == 2
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_files_that_cannot_be_written_are_said(run, shown) -> None:
    image, mask = shown("red")
    Path("file").write_text("x", encoding="utf-8")
    done = run("concept", "save", "mug", "--reference", image, "--mask", mask, "--out",
               "file/mug.safetensors")  # fmt: skip
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1


def test_what_a_terminal_obeys_is_escaped(run, shown, tmp_path) -> None:
    image, mask = shown("red")
    saved = run(
        "concept", "save", "\x1b[2Jmug", "--reference", image, "--mask", mask,
        "--out", tmp_path / "a.safetensors",
    )  # fmt: skip
    told = run("concept", "show", tmp_path / "a.safetensors")
    for done in (saved, told):
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(r"\x1b[2Jmug: ")
        assert "\x1b" not in done.stdout
