"""The dense ConSE grounder against a plain NumPy restatement of its formula."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from promptseg import models
from promptseg.models.backbones.efficientnet_lite import EfficientNetLite2, imagenet_state_dict
from promptseg.models.errors import CheckpointError
from promptseg.models.grounding.minilm import load_minilm
from promptseg.models.grounding.pocket import NAMES_FILE, ClassNames, PocketGrounder

NAMES_PATH = Path(models.__file__).parent / "weights" / NAMES_FILE
NUM_CLASSES = 1000
WIDTH = 384
CHANNELS = 5


class FewChannels(nn.Module):
    """A stand-in for the backbone: averages at stride 16 and a random linear head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.randn(CHANNELS, 3, generator=generator)
        self.head = 4 * torch.randn(NUM_CLASSES, CHANNELS, generator=generator)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (torch.einsum("kc,bchw->bkhw", self.mix, F.avg_pool2d(pixels, 16)),)

    def classify(self, features: Tensor) -> Tensor:
        return torch.einsum("nk,bkhw->bnhw", self.head, features)


class Dictionary:
    """A stand-in for the text encoder: a given unit vector for each phrase."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors

    def encode(self, phrases: list[str]) -> Tensor:
        rows = np.array([self.vectors[p] for p in phrases], np.float32).reshape(-1, WIDTH)
        return torch.from_numpy(rows)


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
def grounder(tmp_path_factory, name_vectors, vectors) -> PocketGrounder:
    path = write_names(tmp_path_factory.mktemp("names") / "names.safetensors", name_vectors, PAIRS)
    return PocketGrounder(
        FewChannels(), class_names=ClassNames(path), text_encoder=Dictionary(vectors)
    )


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A picture of smooth colours, (45, 70, 3)."""
    small = np.random.default_rng(3).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((70, 45)))


INPUT_SIZE = (85, 133)  # of the first look, no multiple of anything
FEATURES = torch.randn(1, CHANNELS, 6, 10, generator=torch.Generator().manual_seed(4))


def numpy_similarity(phrase: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Cosine of a phrase to the nearest name of each class, (1000,)."""
    best = np.full(NUM_CLASSES, -1.0)
    for c, n in PAIRS:
        best[c] = max(best[c], phrase @ names[n])
    return best


def numpy_probabilities(backbone: FewChannels, features: np.ndarray) -> np.ndarray:
    """Softmax of the head at each place: (1000, h, w) of features (K, h, w)."""
    logits = np.einsum("nk,khw->nhw", backbone.head.numpy().astype(np.float64), features)
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def bilinear(values: np.ndarray, y: float, x: float) -> float:
    """Values (h, w) at a place in cells, whose centres are at .5; beyond them the border."""
    y, x = np.clip(y - 0.5, 0, values.shape[0] - 1), np.clip(x - 0.5, 0, values.shape[1] - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, values.shape[0] - 1), min(x0 + 1, values.shape[1] - 1)
    top = values[y0, x0] * (1 - (x - x0)) + values[y0, x1] * (x - x0)
    bottom = values[y1, x0] * (1 - (x - x0)) + values[y1, x1] * (x - x0)
    return float(top * (1 - (y - y0)) + bottom * (y - y0))


def numpy_look(
    backbone: FewChannels,
    features: np.ndarray,
    size: tuple[int, int],
    weights: np.ndarray,
    grid: tuple[int, int],
) -> np.ndarray:
    rows, columns = int(np.ceil(size[0] / 16)), int(np.ceil(size[1] / 16))
    probabilities = numpy_probabilities(backbone, features[:, :rows, :columns])
    coarse = (weights[:, None, None] * probabilities).sum(0)
    heat = np.zeros(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            y, x = (i + 0.5) / grid[0] * size[0], (j + 0.5) / grid[1] * size[1]
            heat[i, j] = bilinear(coarse, y / 16, x / 16)
    return heat


def numpy_second_features(backbone: FewChannels, image: np.ndarray) -> np.ndarray:
    """Of the picture at 320 x 206, padded with grey to 320 x 224."""
    small = np.asarray(Image.fromarray(image).resize((320, 206), Image.Resampling.BILINEAR))
    padded = np.zeros((224, 320, 3))
    padded[:206] = small / 127.5 - 1
    cells = padded.reshape(14, 16, 20, 16, 3).mean((1, 3))
    return np.einsum("kc,hwc->khw", backbone.mix.numpy().astype(np.float64), cells)


@pytest.mark.parametrize("phrase", ["synonym", "between", "unlike"])
def test_heat_and_presence_equal_the_formula(
    grounder, vectors, name_vectors, image, phrase: str
) -> None:
    (found,) = grounder.ground([phrase], image=image, features=FEATURES, input_size=INPUT_SIZE)
    similarity = numpy_similarity(vectors[phrase], name_vectors)
    weights = np.exp((similarity - similarity.max()) / 0.05)
    grid = (22, 34)  # 85 x 133 pixels in cells of 4
    first = numpy_look(
        grounder.backbone, FEATURES[0].numpy().astype(np.float64), INPUT_SIZE, weights, grid
    )
    second = numpy_look(
        grounder.backbone,
        numpy_second_features(grounder.backbone, image),
        (206, 320),
        weights,
        grid,
    )
    expected = (first + second) / 2
    assert found.phrase == phrase
    assert found.heat.dtype == np.float32
    assert expected.std() > 0.01
    np.testing.assert_allclose(found.heat, expected, atol=2e-5)
    known = np.clip((similarity.max() - 0.35) / 0.4, 0, 1)
    assert found.presence == pytest.approx(expected.max() * known, abs=2e-5)


def test_padding_of_the_first_look_does_not_count(grounder, image) -> None:
    # Of the first look's 8 x 12 cells, 85 x 133 pixels reach into 6 x 9.
    padded = 100 * torch.ones(1, CHANNELS, 8, 12)
    padded[..., :6, :9] = FEATURES[..., :6, :9]
    one, other = (
        grounder.ground(["synonym"], image=image, features=f, input_size=INPUT_SIZE)[0]
        for f in (FEATURES, padded)
    )
    np.testing.assert_array_equal(one.heat, other.heat)


def test_a_list_of_phrases_equals_one_by_one(grounder, vectors, image) -> None:
    phrases = [*vectors, "synonym"]
    together = grounder.ground(phrases, image=image, features=FEATURES, input_size=INPUT_SIZE)
    assert [found.phrase for found in together] == phrases
    for phrase, found in zip(phrases, together, strict=True):
        (alone,) = grounder.ground([phrase], image=image, features=FEATURES, input_size=INPUT_SIZE)
        np.testing.assert_allclose(found.heat, alone.heat, atol=1e-6)
        assert found.presence == pytest.approx(alone.presence, abs=1e-6)


def test_presence_falls_with_the_similarity_of_the_nearest_class(tmp_path, image) -> None:
    # All classes have one name, so that every phrase has all the heat there is: 1.
    names = np.zeros((1, WIDTH))
    names[0, 0] = 1
    path = write_names(tmp_path / "names.safetensors", names, [(c, 0) for c in range(NUM_CLASSES)])
    cosines = {"0.9": 0.9, "0.75": 0.75, "0.55": 0.55, "0.35": 0.35, "0": 0.0, "-0.5": -0.5}
    vectors = {}
    for phrase, cosine in cosines.items():
        vectors[phrase] = np.zeros(WIDTH)
        vectors[phrase][:2] = cosine, np.sqrt(1 - cosine**2)
    grounder = PocketGrounder(
        FewChannels(), class_names=ClassNames(path), text_encoder=Dictionary(vectors)
    )
    found = grounder.ground(list(cosines), image=image, features=FEATURES, input_size=INPUT_SIZE)
    for heat_map in found:
        np.testing.assert_allclose(heat_map.heat, 1, atol=1e-5)
    presences = [heat_map.presence for heat_map in found]
    np.testing.assert_allclose(presences, [1, 1, 0.5, 0, 0, 0], atol=1e-5)


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


def test_the_real_parts_tell_a_cat_from_a_bicycle() -> None:
    from skimage import data

    backbone = EfficientNetLite2().eval()
    backbone.load_state_dict(imagenet_state_dict())
    grounder = PocketGrounder(backbone, class_names=ClassNames(NAMES_PATH)).eval()
    image = np.asarray(Image.fromarray(data.chelsea()).resize((192, 128)))
    pixels = torch.from_numpy(image / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        features = backbone(pixels)[-1]
    phrases = ["cat", "a cat", "bicycle", "qwrtzpfgh"]
    found = grounder.ground(phrases, image=image, features=features, input_size=(128, 192))
    assert [f.heat.shape for f in found] == [(32, 48)] * 4
    assert all((f.heat >= 0).all() and (f.heat <= 1).all() for f in found)
    cat, a_cat, bicycle, nonsense = (f.presence for f in found)
    assert min(cat, a_cat) > 0.5
    assert max(bicycle, nonsense) < 0.1
    # The right quarter of the picture shows no cat.
    assert found[0].heat[:, 4:30].mean() > 2 * found[0].heat[:, 42:].mean()
