"""Dense ConSE against a plain NumPy restatement of its formula."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from promptseg import models
from promptseg.models.errors import CheckpointError
from promptseg.models.grounding.answers import sample_cells
from promptseg.models.pocket.backbone import EfficientNetLite2, imagenet_state_dict
from promptseg.models.pocket.conse import (
    NAMES_FILE,
    SIMILARITY_RANGE,
    TEMPERATURE,
    ClassMaps,
    ClassNames,
    DenseConse,
)
from promptseg.models.pocket.minilm import load_minilm

NAMES_PATH = Path(models.__file__).parent / "weights" / NAMES_FILE
NUM_CLASSES = 1000
WIDTH = 384
CHANNELS = 5
INPUT_SIZE = (85, 133)  # of the picture, no multiple of anything


class FewChannels(nn.Module):
    """A stand-in for the backbone: late stages that average, and a random linear head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.randn(CHANNELS, 3, generator=generator)
        self.head = 2 * torch.randn(NUM_CLASSES, CHANNELS, generator=generator)

    def deep(self, stride8: Tensor) -> tuple[Tensor, Tensor]:
        last = torch.einsum("kc,bchw->bkhw", self.mix, F.avg_pool2d(stride8, 2))
        return torch.full_like(last, torch.nan), last

    def classify(self, features: Tensor) -> Tensor:
        return torch.einsum("nk,bkhw->bnhw", self.head, features)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.normal(size=(*shape, WIDTH))
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def write_names(path: Path, embeddings: np.ndarray, pairs: list[tuple[int, int]]) -> Path:
    save_file(
        {
            "embeddings": torch.from_numpy(embeddings.astype(np.float16)),
            "pairs": torch.tensor(pairs, dtype=torch.int16),
        },
        path,
        metadata={"names": json.dumps([f"name {i}" for i in range(len(embeddings))])},
    )
    return path


# Class c goes by name c % 7, every third class by the name after it as well.
PAIRS = [(c, (c + k) % 7) for c in range(NUM_CLASSES) for k in range(2 if c % 3 == 0 else 1)]


@pytest.fixture(scope="module")
def name_vectors() -> np.ndarray:
    return unit(np.random.default_rng(1), 7).astype(np.float16).astype(np.float64)


@pytest.fixture(scope="module")
def vectors(name_vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Phrases like a name, between two names, and like none."""
    rng = np.random.default_rng(2)
    between = 0.7 * name_vectors[2] + 0.6 * name_vectors[5]
    return {
        "synonym": name_vectors[3],
        "between": between / np.linalg.norm(between),
        "unlike": unit(rng),
    }


@pytest.fixture(scope="module")
def conse(tmp_path_factory, name_vectors) -> DenseConse:
    path = write_names(tmp_path_factory.mktemp("names") / "names.safetensors", name_vectors, PAIRS)
    return DenseConse(FewChannels(), ClassNames(path))


STRIDE8 = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(3))
CELLS = (6, 9)  # that 85 x 133 pixels reach into; the rest of the map's 8 x 10 is padding


def numpy_similarity(phrase: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Cosine of a phrase to the nearest name of each class, (1000,)."""
    best = np.full(NUM_CLASSES, -1.0)
    for c, n in PAIRS:
        best[c] = max(best[c], phrase @ names[n])
    return best


def numpy_probabilities(backbone: FewChannels) -> np.ndarray:
    """Softmax of the head at each cell of the picture, its padding left out."""
    cells = STRIDE8[0].numpy().astype(np.float64).reshape(3, 8, 2, 10, 2).mean((2, 4))
    cells = cells[:, : CELLS[0], : CELLS[1]]
    mix, head = (v.numpy().astype(np.float64) for v in (backbone.mix, backbone.head))
    logits = np.einsum("nk,kc,chw->nhw", head, mix, cells)
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def test_a_look_sees_the_classes_at_every_place(conse) -> None:
    maps = conse.look(STRIDE8, INPUT_SIZE)
    expected = numpy_probabilities(conse.backbone)
    assert expected.max(0).std() > 0.01
    np.testing.assert_allclose(maps.probabilities.numpy(), expected, atol=2e-5)
    assert maps.extent == (85 / 16, 133 / 16)


@pytest.mark.parametrize("phrase", ["synonym", "between", "unlike"])
def test_heat_and_presence_equal_the_formula(conse, vectors, name_vectors, phrase: str) -> None:
    text = torch.from_numpy(vectors[phrase]).float()[None]
    grid = (21, 33)
    maps = conse.look(STRIDE8, INPUT_SIZE)
    heat, presence = conse.score(maps, text, grid)
    similarity = numpy_similarity(vectors[phrase], name_vectors)
    weights = np.exp((similarity - similarity.max()) / TEMPERATURE)
    coarse = np.einsum("c,chw->hw", weights, numpy_probabilities(conse.backbone))
    expected = sample_cells(torch.from_numpy(coarse)[None, None].float(), maps.extent, grid)
    assert coarse.std() > 0.01
    torch.testing.assert_close(heat, expected[0], rtol=0, atol=2e-5)
    low, high = SIMILARITY_RANGE
    known = np.clip((similarity.max() - low) / (high - low), 0, 1)
    assert presence.tolist() == pytest.approx([coarse.max() * known], abs=2e-5)


def test_a_list_of_phrases_equals_one_by_one(conse, vectors) -> None:
    text = torch.from_numpy(np.array([*vectors.values()])).float()
    maps = conse.look(STRIDE8, INPUT_SIZE)
    heat, presence = conse.score(maps, text, (10, 16))
    assert heat.shape == (3, 10, 16)
    for i in range(3):
        alone, sure = conse.score(maps, text[i : i + 1], (10, 16))
        torch.testing.assert_close(alone[0], heat[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(sure[0], presence[i], rtol=0, atol=1e-6)


def test_presence_falls_with_the_similarity_of_the_nearest_class(tmp_path) -> None:
    # All classes have one name, so that every phrase has all the heat there is: 1.
    names = np.zeros((1, WIDTH))
    names[0, 0] = 1
    path = write_names(tmp_path / "names.safetensors", names, [(c, 0) for c in range(NUM_CLASSES)])
    low, high = SIMILARITY_RANGE
    cosines = torch.tensor([0.95, high, (low + high) / 2, low, 0.0, -0.5])
    text = torch.zeros(len(cosines), WIDTH)
    text[:, 0], text[:, 1] = cosines, (1 - cosines**2).sqrt()
    maps = ClassMaps(torch.rand(NUM_CLASSES, 3, 4).softmax(0), (3.0, 4.0))
    heat, presence = DenseConse(FewChannels(), ClassNames(path)).score(maps, text, (3, 4))
    np.testing.assert_allclose(heat, np.ones((6, 3, 4)), atol=1e-5)
    np.testing.assert_allclose(presence, [1, 1, 0.5, 0, 0, 0], atol=1e-5)


def test_stored_class_names_are_minilms_own() -> None:
    stored = ClassNames(NAMES_PATH)
    assert stored.embeddings.shape == (len(stored.names), WIDTH)
    picked = list(range(0, len(stored.names), len(stored.names) // 40))
    found = load_minilm().encode([stored.names[i] for i in picked])
    torch.testing.assert_close(stored.embeddings[picked], found, rtol=0, atol=1e-3)  # halves


def test_every_class_has_a_name_and_every_name_a_class() -> None:
    stored = ClassNames(NAMES_PATH)
    assert set(stored.classes.tolist()) == set(range(NUM_CLASSES))
    assert set(stored.numbers.tolist()) == set(range(len(stored.names)))
    of_class = {c: set() for c in (281, 444, 980)}
    for c, n in zip(stored.classes.tolist(), stored.numbers.tolist(), strict=True):
        if c in of_class:
            of_class[c].add(stored.names[n])
    assert of_class == {
        281: {"tabby", "tabby cat", "cat"},
        444: {"bicycle-built-for-two", "tandem bicycle", "tandem", "bicycle", "bike"},
        980: {"volcano", "mountain"},
    }


def test_a_class_counts_by_its_nearest_name(tmp_path) -> None:
    names = np.eye(3, WIDTH)
    pairs = [(c, 0) for c in range(NUM_CLASSES)] + [(7, 1), (7, 2)]
    stored = ClassNames(write_names(tmp_path / "names.safetensors", names, pairs))
    phrase = torch.zeros(2, WIDTH)
    phrase[0, :3] = torch.tensor([0.5, 0.75, 0.25])
    phrase[1, :3] = torch.tensor([-0.5, -0.75, -0.25])
    found = stored.similarities(phrase)
    assert found.shape == (2, NUM_CLASSES)
    assert found[0, [6, 7, 8]].tolist() == [0.5, 0.75, 0.5]
    assert found[1, [6, 7, 8]].tolist() == [-0.5, -0.25, -0.5]


def no_file(path: Path) -> None: ...


def rubbish(path: Path) -> None:
    path.write_bytes(b"not a safetensors file at all")


def other_tensors(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def no_metadata(path: Path) -> None:
    with safe_open(NAMES_PATH, framework="pt") as file:
        save_file({key: file.get_tensor(key) for key in ("embeddings", "pairs")}, path)


@pytest.mark.parametrize("write", [no_file, rubbish, other_tensors, no_metadata])
def test_another_file_of_names_is_refused(tmp_path: Path, write) -> None:
    path = tmp_path / "names.safetensors"
    write(path)
    with pytest.raises(CheckpointError, match=r"names\.safetensors.*reinstall promptseg"):
        ClassNames(path)


@torch.no_grad()
def test_the_real_parts_tell_a_cat_from_a_bicycle() -> None:
    from skimage import data

    backbone = EfficientNetLite2().eval()
    backbone.load_state_dict(imagenet_state_dict())
    conse = DenseConse(backbone, ClassNames(NAMES_PATH)).eval()
    text = load_minilm().encode(["cat", "a cat", "bicycle", "qwrtzpfgh"])
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None] / 127.5 - 1
    pixels = F.pad(image, (0, 480 - 451, 0, 320 - 300))
    maps = conse.look(backbone.shallow(pixels)[1], (300, 451))
    heat, presence = conse.score(maps, text, (32, 48))
    assert heat.shape == (4, 32, 48)
    assert ((heat >= 0) & (heat <= 1)).all()
    assert presence[:2].min() > 0.5
    assert presence[2:].max() < 0.1
    # The right quarter of the picture shows no cat.
    assert heat[0, :, 4:30].mean() > 2 * heat[0, :, 42:].mean()
