"""Dense CLIP on tiny open_clip models in the hub's layout, against open_clip itself."""

from __future__ import annotations

import json
import math
import socket
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
import transformers
from open_clip.transform import image_transform
from PIL import Image

from promptseg.models.errors import CheckpointError, InputError, ModelNotFoundError
from promptseg.models.grounding.clip import text as clip_text
from promptseg.models.grounding.clip.dense import DenseClip, DenseClipConfig, create_dense_clip
from promptseg.models.grounding.clip.text import default_templates
from promptseg.models.grounding.clip.vision import dense_features

from ..shrunken import CLIP_MEAN, CLIP_SPEC, CLIP_STD, random_clip, save_clip

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
PHRASES = ["traffic light", "light", "Rhodesian ridgeback", "naïve café ☕", "一只猫", "light"]
TEMPLATES = ("a photo of a {}.", "{}", "the {} in a {} scene")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub")
    save_clip(path, CLIP_SPEC)
    return path


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    return random_clip(CLIP_SPEC)


def build(folder: Path, **settings: Any) -> DenseClip:
    config = DenseClipConfig(**{"input_size": 48, "templates": TEMPLATES, **settings})
    return create_dense_clip("tiny", folder, config=config)


@pytest.fixture(scope="module")
def clip(folder: Path) -> DenseClip:
    return build(folder)


def pixels_by_open_clip(image: np.ndarray, size: int | tuple[int, int]) -> torch.Tensor:
    transform = image_transform(
        size,
        is_train=False,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        interpolation="bicubic",
        resize_mode="squash",
    )
    return transform(Image.fromarray(image))[None]


@torch.inference_mode()
@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("options", [{}, {"no_ln_pre": True}])
def test_unmodified_it_is_open_clip(tmp_path: Path, quick_gelu: bool, options: dict) -> None:
    spec = {
        **CLIP_SPEC,
        "quick_gelu": quick_gelu,
        "vision_cfg": {**CLIP_SPEC["vision_cfg"], **options},
    }
    model = save_clip(tmp_path, spec)
    view = build(tmp_path, attention="none", input_size=32).look(IMAGE)
    wanted = model.encode_image(pixels_by_open_clip(IMAGE, 32), normalize=True)[0]
    torch.testing.assert_close(view.cls, wanted, rtol=0, atol=1e-5)
    tokens = model.visual.forward_intermediates(
        pixels_by_open_clip(IMAGE, 32), indices=1, normalize_intermediates=True
    )["image_intermediates"][0]
    cells = tokens[0].permute(1, 2, 0) @ model.visual.proj
    torch.testing.assert_close(view.cells, cells / cells.norm(dim=-1, keepdim=True))


@torch.inference_mode()
def test_the_whole_picture_is_seen_as_trained(folder: Path, reference: torch.nn.Module) -> None:
    view = build(folder, attention="surgery", input_size=32).look(IMAGE)
    wanted = reference.encode_image(pixels_by_open_clip(IMAGE, 32), normalize=True)[0]
    torch.testing.assert_close(view.cls, wanted, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_text_equals_open_clip(clip: DenseClip, reference: torch.nn.Module) -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    found = clip.text.encode([*PHRASES, ""])
    for phrase, feature in zip([*PHRASES, ""], found, strict=True):
        texts = [f"a photo of a {phrase}.", phrase, f"the {phrase} in a {phrase} scene"]
        parts = reference.encode_text(tokenizer(texts), normalize=True)
        mean = parts.mean(0)
        torch.testing.assert_close(feature, mean / mean.norm(), rtol=0, atol=1e-5)


def test_the_default_templates_are_the_85_of_clip_surgery(folder: Path) -> None:
    templates = default_templates()
    assert len(set(templates)) == 85
    assert templates[:80] == tuple(f("{}") for f in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert templates[80:] == tuple(
        f"{start} {article} {{}} in the scene."
        for start, article in (
            ("there is", "a"),
            ("there is", "the"),
            ("this is", "a"),
            ("this is", "the"),
            ("this is", "one"),
        )
    )
    assert create_dense_clip("tiny", folder).text.templates == templates


def test_heat_is_the_scaled_similarity(clip: DenseClip) -> None:
    view = clip.look(IMAGE)
    found = clip.ground(PHRASES, view)
    assert [item.phrase for item in found] == PHRASES
    empty = clip.text.encode([""])[0]
    for item in found:
        similarity = (view.cells @ (clip.text.encode([item.phrase])[0] - empty)).numpy()
        low, high = similarity.min(), similarity.max()
        assert item.heat.dtype == np.float32
        np.testing.assert_allclose(item.heat, (similarity - low) / (high - low), atol=1e-5)
        assert item.heat.min() == 0.0
        assert item.heat.max() == 1.0
        assert 0.0 < item.presence < 1.0
    assert np.array_equal(found[1].heat, found[5].heat)
    assert not np.allclose(found[0].heat, found[1].heat, atol=1e-2)


def test_presence_is_a_softmax_over_rivals(folder: Path) -> None:
    clip = build(folder)
    view = clip.look(IMAGE)
    scale = math.exp(clip.model.logit_scale.item())

    def share(phrase: str, rivals: list[str]) -> float:
        own, *others = (
            math.exp(scale * float(view.cls @ feature))
            for feature in clip.text.encode([phrase, *rivals])
        )
        return own / (own + sum(others))

    found = clip.presence(["light", "cat"], view, siblings=["dog", "Light"])
    # "Light" is no rival of "light".
    wanted = [share("light", ["", "dog"]), share("cat", ["", "dog", "Light"])]
    assert found == pytest.approx(wanted, abs=1e-5)
    (alone,) = clip.ground(["cat"], view)
    assert alone.presence == pytest.approx(share("cat", [""]), abs=1e-5)


def test_a_batch_equals_one_by_one(folder: Path) -> None:
    view = build(folder).look(IMAGE)
    batch = build(folder).ground(PHRASES, view)
    for phrase, item in zip(PHRASES, batch, strict=True):
        alone = build(folder).ground([phrase], view)[0]
        np.testing.assert_allclose(alone.heat, item.heat, atol=1e-5)
        assert alone.presence == pytest.approx(item.presence, abs=1e-5)
    assert build(folder).ground([], view) == []


@pytest.mark.parametrize(
    ("shape", "settings", "grid"),
    [
        ((40, 56), {}, (6, 6)),
        ((1, 1), {}, (6, 6)),
        ((30, 900), {"input_size": 3}, (1, 1)),
        ((40, 56), {"input_size": 45, "attention": "none"}, (6, 6)),
    ],
)
def test_the_grid_spans_pictures_of_all_shapes(
    folder: Path, shape: tuple[int, int], settings: dict, grid: tuple[int, int]
) -> None:
    clip = build(folder, **settings)
    view = clip.look(np.full((*shape, 3), 90, np.uint8))
    assert view.image_size == shape
    assert view.cells.shape == (*grid, 16)
    torch.testing.assert_close(view.cells.norm(dim=-1), torch.ones(grid))
    heat = clip.ground(["cat"], view)[0].heat
    assert heat.shape == grid
    assert np.isfinite(heat).all()


@torch.inference_mode()
def test_cells_lie_where_the_picture_has_them(folder: Path, reference: torch.nn.Module) -> None:
    cells = build(folder, attention="surgery").look(IMAGE).cells
    pixels = pixels_by_open_clip(IMAGE, 48)
    wanted, _ = dense_features(reference.visual, pixels, attention="surgery", blocks=6)
    torch.testing.assert_close(cells, wanted / wanted.norm(dim=-1, keepdim=True))


def test_bfloat16_runs_the_networks_alone(folder: Path, clip: DenseClip) -> None:
    config = clip.config
    half = create_dense_clip("tiny", folder, dtype="bf16", config=config)
    exact, rough = clip.look(IMAGE), half.look(IMAGE)
    assert rough.cells.dtype == rough.cls.dtype == torch.float32
    assert not torch.equal(rough.cells, exact.cells)
    assert (rough.cells * exact.cells).sum(-1).min() > 0.99
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    found, wanted = half.ground(["cat"], rough)[0], clip.ground(["cat"], exact)[0]
    assert found.presence == pytest.approx(wanted.presence, abs=0.05)
    with pytest.raises(InputError, match="int8"):
        create_dense_clip("tiny", folder, dtype="int8")


def test_texts_are_encoded_in_blocks_and_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = build(folder)
    blocks: list[int] = []
    run = clip.text._run

    def spy(tokens: torch.Tensor) -> torch.Tensor:
        blocks.append(len(tokens))
        return run(tokens)

    monkeypatch.setattr(clip.text, "_run", spy)
    monkeypatch.setattr(clip_text, "BATCH_SIZE", 2)
    monkeypatch.setattr(clip_text, "CACHE_SIZE", 2)
    whole = build(folder).text.encode(["cat", "dog"])
    torch.testing.assert_close(clip.text.encode(["cat", "dog"]), whole, rtol=0, atol=1e-6)
    assert blocks == [2, 1] * 2
    clip.text.encode(["dog", "cat"])
    assert blocks == [2, 1] * 2  # nothing new
    clip.text.encode(["cow"])  # "dog" is what was used longest ago
    clip.text.encode(["cat"])
    assert blocks == [2, 1] * 3
    clip.text.encode(["dog"])
    assert blocks == [2, 1] * 4
    assert len(clip.text._recent) == 2


@pytest.mark.parametrize("phrase", ["", "  ", "\n\t"])
def test_an_empty_phrase_is_refused(clip: DenseClip, phrase: str) -> None:
    view = clip.look(IMAGE)
    with pytest.raises(InputError, match="is empty; write what to look for"):
        clip.ground(["cat", phrase], view)
    with pytest.raises(InputError, match="is empty"):
        clip.presence(["cat"], view, siblings=[phrase])


def test_a_phrase_is_never_cut_in_silence(folder: Path) -> None:
    clip = build(folder, templates=("{}", "a {}"))
    # 24 tokens hold two marks and, with the longer template, one word more.
    assert clip.text.encode([" ".join(["cat"] * 21)]).shape == (1, 16)
    with pytest.raises(InputError, match=r"longer than the 24 tokens .*; shorten the phrase"):
        clip.text.encode([" ".join(["cat"] * 22)])


def test_braces_and_formats_are_plain_text(clip: DenseClip) -> None:
    assert torch.isfinite(clip.text.encode(["{0} {x!r} {}"])).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "sharp"}, "attention must be one of surgery, none"),
        ({"input_size": 0}, "input_size must be 1 pixel or more"),
        ({"templates": ()}, "templates must not be empty"),
        ({"templates": ("a photo",)}, "'a photo' has no {}"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseClipConfig(**settings)


def same_weights(clip: DenseClip, reference: torch.nn.Module) -> bool:
    ours, theirs = clip.model.state_dict(), reference.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_weights_come_in_the_hubs_layouts(tmp_path: Path, reference: torch.nn.Module) -> None:
    save_clip(tmp_path / "bin", CLIP_SPEC, file="open_clip_pytorch_model.bin")
    assert same_weights(build(tmp_path / "bin"), reference)
    file = tmp_path / "bin" / "open_clip_pytorch_model.bin"
    by_file = create_dense_clip("tiny", str(file))
    assert same_weights(by_file, reference)
    assert by_file._mean.flatten().tolist() == pytest.approx(CLIP_MEAN)
    # As training scripts leave it.
    state = torch.load(file, weights_only=True)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, file)
    assert same_weights(build(tmp_path / "bin"), reference)


def test_safetensors_are_preferred(tmp_path: Path, reference: torch.nn.Module) -> None:
    save_clip(tmp_path, CLIP_SPEC)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"broken")
    assert same_weights(build(tmp_path), reference)


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with nothing in it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    return tmp_path


def test_a_hub_id_is_found_in_the_cache(empty_machine: Path, reference: torch.nn.Module) -> None:
    repo = empty_machine / "cache" / "models--owner--tiny"
    save_clip(repo / "snapshots" / "abc", CLIP_SPEC)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    found = create_dense_clip("tiny", "owner/tiny")
    assert same_weights(found, reference)
    assert found._std.flatten().tolist() == pytest.approx(CLIP_STD)


def test_a_hub_id_is_found_in_the_folder_of_weights(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch, reference: torch.nn.Module
) -> None:
    monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(empty_machine))
    save_clip(empty_machine / "owner--tiny", CLIP_SPEC, file="open_clip_pytorch_model.bin")
    assert same_weights(create_dense_clip("tiny", "owner/tiny"), reference)


@pytest.mark.usefixtures("empty_machine")
def test_a_hub_id_that_is_not_here_is_never_fetched() -> None:
    command = "hf download owner/tiny"
    with pytest.raises(CheckpointError, match=f"run `{command}`, or give the path of open_clip_"):
        create_dense_clip("ViT-B-16", "owner/tiny")


@pytest.mark.usefixtures("empty_machine")
def test_a_path_that_is_not_there_is_nothing_to_fetch() -> None:
    with pytest.raises(CheckpointError, match="on this machine; give the path of open_clip_"):
        create_dense_clip("ViT-B-16", "/no/where/at/all")


def test_a_name_without_weights_gives_seeded_random_ones() -> None:
    state = torch.get_rng_state()
    one, same, other = (create_dense_clip("ViT-S/32-alt", None, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(one, same.model)
    assert not same_weights(one, other.model)
    assert one._mean.flatten().tolist() == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert not one.model.training


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-Z-99", "no model called 'ViT-Z-99'"),
        ("RN50", "its image encoder is a ResNet"),
        ("ViT-B-16-SigLIP", "its image encoder is timm's"),
        ("coca_ViT-B-32", "CoCa"),
        ("roberta-ViT-B-32", "its text encoder is roberta-base"),
    ],
)
def test_models_without_dense_features_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"{reason}.*such as ViT-B-16"):
        create_dense_clip(name, None)


@pytest.mark.parametrize(
    ("section", "options", "reason"),
    [
        ("vision_cfg", {"qk_norm": True}, "its attention is not that of"),
        ("vision_cfg", {"block_type": "custom"}, "its attention is not that of"),
        ("text_cfg", {"tokenizer_mode": "clips"}, "its tokenizer runs in the mode"),
    ],
)
def test_models_of_other_parts_are_refused(
    folder: Path, tmp_path: Path, section: str, options: dict, reason: str
) -> None:
    (tmp_path / "open_clip_model.safetensors").symlink_to(folder / "open_clip_model.safetensors")
    spec = {**CLIP_SPEC, section: {**CLIP_SPEC[section], **options}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": spec}))
    with pytest.raises(ModelNotFoundError, match=reason):
        create_dense_clip("tiny", tmp_path)


def _break_config(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text("{")


def _empty_config(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text(
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": 1}}'
    )


def _unknown_option(folder: Path) -> None:
    spec = {**CLIP_SPEC, "vision_cfg": {**CLIP_SPEC["vision_cfg"], "future": 1}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": spec}))


def _other_width(folder: Path) -> None:
    spec = {**CLIP_SPEC, "vision_cfg": {**CLIP_SPEC["vision_cfg"], "width": 40}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": spec}))


def _no_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def _cut_short(folder: Path) -> None:
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def _program(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    with zipfile.ZipFile(folder / "open_clip_pytorch_model.bin", "w") as archive:
        archive.writestr("clip/code/__torch__.py", "")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_break_config, "is not the config of an open_clip model .*download it again"),
        (_empty_config, "lacks vision_cfg or text_cfg"),
        (_unknown_option, "cannot build tiny .*pip install -U open-clip-torch"),
        (_other_width, "does not fit tiny: .* of another shape .*give a checkpoint of tiny"),
        (_cut_short, "is not a complete safetensors file"),
        (_no_weights, "holds no open_clip weights: expected open_clip_model.safetensors or"),
    ],
)
def test_broken_folders_are_named(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    save_clip(tmp_path, CLIP_SPEC)
    harm(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        create_dense_clip("tiny", tmp_path)


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    save_clip(tmp_path, CLIP_SPEC)
    _program(tmp_path)
    with pytest.raises(CheckpointError, match=r"TorchScript program.*hf download timm/"):
        create_dense_clip("tiny", tmp_path / "open_clip_pytorch_model.bin")


def test_weights_of_another_model_than_named_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another model than ViT-B-16: .* 'width': 32"):
        create_dense_clip("ViT-B-16", folder)


@pytest.mark.usefixtures("empty_machine")
def test_a_wrong_path_fails_before_anything_heavy_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)  # importing it would fail
    for missing in ("nowhere/at/all", Path("owner/name"), "no id!"):
        with pytest.raises(CheckpointError, match="neither a file, nor a folder"):
            create_dense_clip("ViT-B-16", missing)


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A model like CLIPA: BERT's tokenizer, no causal mask, patches averaged."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["a", "cat", "dog", "photo", "of", "sits", "."],
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    vision = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    text = {
        "context_length": 12,
        "vocab_size": len(words),
        "hf_tokenizer_name": "bert-base-uncased",
        "tokenizer_kwargs": {"strip_sep_token": True},
        "pool_type": "last",
        "no_causal_mask": True,
    }
    spec = {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {**CLIP_SPEC["vision_cfg"], **vision},
        "text_cfg": {**CLIP_SPEC["text_cfg"], **text},
    }
    save_clip(tmp_path, spec)
    return tmp_path


@torch.inference_mode()
def test_a_tokenizer_beside_the_weights(bert_folder: Path) -> None:
    spec = json.loads((bert_folder / "open_clip_config.json").read_text())["model_cfg"]
    model = random_clip(spec)
    clip = build(bert_folder, templates=("a photo of a {}.",), attention="none", input_size=32)
    wanted = model.encode_image(pixels_by_open_clip(IMAGE, 32), normalize=True)[0]
    torch.testing.assert_close(clip.look(IMAGE).cls, wanted, rtol=0, atol=1e-5)
    tokens = open_clip.tokenizer.HFTokenizer(str(bert_folder), strip_sep_token=True)(
        ["a photo of a cat."], context_length=12
    )
    text = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(clip.text.encode(["cat"]), text, rtol=0, atol=1e-5)
    # The end mark counts, though it is blanked out: [CLS], the template's five, five words, [SEP].
    clip.text.encode(["cat sits sits sits sits"])
    with pytest.raises(InputError, match="longer than the 12 tokens"):
        clip.text.encode(["cat sits sits sits sits sits"])


def test_a_tokenizer_that_is_not_there(bert_folder: Path) -> None:
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (bert_folder / file).unlink(missing_ok=True)
    with pytest.raises(
        CheckpointError, match="the tokenizer of bert-base-uncased: give the folder"
    ):
        create_dense_clip("tiny", bert_folder)
    with pytest.raises(
        CheckpointError, match="the tokenizer of bert-base-uncased: give the folder"
    ):
        create_dense_clip("ViT-L-14-CLIPA", None)
