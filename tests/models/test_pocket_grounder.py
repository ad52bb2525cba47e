"""The trained head and dense ConSE together: whom a phrase is left to, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from promptseg.models.embedding import ImageFeatures
from promptseg.models.errors import CheckpointError
from promptseg.models.grounding.answers import HeatMap, sample_cells
from promptseg.models.pocket.conse import ClassMaps, Relative
from promptseg.models.pocket.grounder import (
    CONSE_GAIN,
    CONSE_LEVEL,
    LEAST_LIKE,
    SUPPORT,
    TRUST_RANGE,
    KnownWords,
    PocketGrounder,
    Views,
    load_text_head,
    other_number,
)
from promptseg.models.pocket.objects import ObjectHead
from promptseg.models.pocket.text_head import TEXT_DIM, TextHead, TextHeadConfig

CHANNELS = (3, 5)  # of the backbone's last two maps
INPUT_SIZE = (85, 133)  # no multiple of anything
GRID = (22, 34)  # 85 x 133 pixels in cells of 4
MANY = 1e9  # pictures that leave nothing to doubt


def axis(number: int, cosine: float = 1.0) -> Tensor:
    """A unit vector of text whose cosine to the axis of that number is given."""
    vector = torch.zeros(TEXT_DIM)
    vector[number], vector[-1] = cosine, (1 - cosine**2) ** 0.5
    return vector


class Dictionary:
    """A stand-in for the text encoder: a given unit vector for each phrase."""

    def __init__(self, vectors: dict[str, Tensor]) -> None:
        self.vectors = vectors

    def encode(self, phrases: list[str]) -> Tensor:
        return torch.stack([self.vectors.get(phrase, axis(50)) for phrase in phrases])


class TwoBlobs(nn.Module):
    """A stand-in for dense ConSE: a faint blob for even axes of the text, and another for odd."""

    presence = 0.7
    peak = 0.04
    alike = 1.0

    def look(self, stride8: Tensor, input_size: tuple[int, int]) -> ClassMaps:
        return ClassMaps(stride8[0], (float(input_size[0]), float(input_size[1])))

    def nearest(self, text: Tensor) -> list[Relative]:
        return [Relative("blob", float(self.alike)) for _ in text]

    def score(self, maps: ClassMaps, text: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        y, x = torch.arange(grid[0])[:, None], torch.arange(grid[1])
        heats = []
        for number in text[:, :-1].argmax(1):
            row, column = ((5, 8), (14, 25))[number % 2]
            distance = (y - row) ** 2 + (x - column) ** 2
            heats.append(self.peak * torch.exp(-distance / 20))
        return torch.stack(heats), torch.full((len(text),), self.presence)


def object_head() -> ObjectHead:
    return ObjectHead(deep_dim=sum(CHANNELS), embed_dim=2, high_res_dim=3, dim=8, depth=1)


VECTORS = {"taught": axis(0), "new": axis(1), "near": axis(0, sum(TRUST_RANGE) / 2)}


@pytest.fixture(scope="module")
def grounder() -> PocketGrounder:
    """Taught one word, that of axis 0, with all the pictures there are."""
    torch.manual_seed(0)
    head = TextHead(TextHeadConfig(in_channels=sum(CHANNELS), dim=8, depth=1))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    known = KnownWords(axis(0)[None], torch.tensor([MANY]))
    return PocketGrounder(
        head, known, TwoBlobs(), object_head(), text_encoder=Dictionary(VECTORS)
    ).eval()


# (170, 266): twice the encoder's input, in two colours.
IMAGE = np.zeros((170, 266, 3), np.uint8)
IMAGE[:, 133:] = (200, 30, 40)
IMAGE[:, :133] = (30, 60, 160)


def maps_of(rows: int, columns: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    widths = (2, 4, *CHANNELS)
    return tuple(torch.randn(1, width, rows, columns, generator=generator) for width in widths)


def features_of(maps: tuple[Tensor, ...]) -> ImageFeatures:
    generator = torch.Generator().manual_seed(5)
    rows, columns = maps[-1].shape[-2:]
    return ImageFeatures(
        image_embeddings=torch.randn(1, 2, rows, columns, generator=generator),
        high_res_features=(torch.randn(1, 3, 2 * rows, 2 * columns, generator=generator),),
        backbone_features=maps,
    )


@pytest.fixture(scope="module")
def views(grounder) -> Views:
    return grounder.look(IMAGE, features_of(maps_of(6, 9)), INPUT_SIZE)


def head_says(grounder: PocketGrounder, views: Views, text: Tensor) -> tuple[np.ndarray, float]:
    """The head's logits on the grid of the heat maps, and its presence as a probability."""
    with torch.inference_mode():
        local, presence = grounder.heads[0].score(views.cells[0], text[None])
        fine = sample_cells(local[None], views.extent, views.grid)[0, 0]
    return fine.numpy(), float(presence.sigmoid())


def conse_says(grounder: PocketGrounder, views: Views, text: Tensor) -> tuple[np.ndarray, float]:
    """ConSE's heat in logits, and its presence."""
    heat, presence = grounder.conse.score(views.classes, text[None], views.grid)
    return CONSE_GAIN * (heat[0] / heat[0].max() - CONSE_LEVEL).numpy(), float(presence)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -10, 10)))


def test_a_look_reads_the_last_two_maps_without_their_padding(grounder) -> None:
    maps = maps_of(8, 12)
    views = grounder.look(IMAGE, features_of(maps), INPUT_SIZE)
    assert views.extent == (85 / 16, 133 / 16)
    assert views.grid == GRID
    deep = torch.cat(maps[2:], dim=1)[..., :6, :9]  # the cells that the picture reaches into
    assert torch.equal(views.cells[0], grounder.heads[0].embed(deep))
    elsewhere = [m.clone() for m in maps]
    for m in elsewhere:
        m[..., 6:, :] = m[..., 9:] = 100
    elsewhere[0] = 100 * maps[0]
    assert torch.equal(
        grounder.look(IMAGE, features_of(elsewhere), INPUT_SIZE).cells[0], views.cells[0]
    )


def test_a_look_in_half_precision_is_scored_in_full(grounder, views) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = grounder.look(IMAGE, features_of(maps_of(6, 9)), INPUT_SIZE)
    assert half.cells[0].dtype == torch.float32
    assert not torch.equal(half.cells[0], views.cells[0])
    (found,), (expected,) = (grounder.ground(["taught"], view) for view in (half, views))
    assert found.presence == pytest.approx(expected.presence, abs=0.05)


def test_a_word_of_the_training_is_left_to_the_head(grounder, views) -> None:
    (found,) = grounder.ground(["taught"], views)
    logits, presence = head_says(grounder, views, VECTORS["taught"])
    assert isinstance(found, HeatMap)
    assert found.phrase == "taught"
    assert found.heat.dtype == np.float32
    assert found.heat.shape == GRID
    assert found.heat.std() > 0.01
    np.testing.assert_allclose(found.heat, sigmoid(logits), atol=1e-5)
    assert found.presence == pytest.approx(presence, abs=1e-5)


def test_another_word_is_left_to_conse_relative_to_its_peak(grounder, views) -> None:
    (found,) = grounder.ground(["new"], views)
    logits, presence = conse_says(grounder, views, VECTORS["new"])
    np.testing.assert_allclose(found.heat, sigmoid(logits), atol=1e-5)
    assert found.presence == pytest.approx(presence, abs=1e-5) == TwoBlobs.presence
    # Where its faint heat is above that share of its peak, the object is.
    heat, _ = grounder.conse.score(views.classes, VECTORS["new"][None], GRID)
    np.testing.assert_array_equal(found.heat > 0.5, heat[0] > CONSE_LEVEL * heat[0].max())
    assert 10 < (found.heat > 0.5).sum() < found.heat.size / 4
    assert np.unravel_index(found.heat.argmax(), GRID) == (14, 25)


def test_between_them_logits_and_presences_are_mixed_by_trust(grounder, views) -> None:
    (found,) = grounder.ground(["near"], views)
    trust = float(grounder.known[0].trust(VECTORS["near"][None]))
    assert trust == pytest.approx(0.5, abs=1e-4)
    parts = [says(grounder, views, VECTORS["near"]) for says in (head_says, conse_says)]
    expected = trust * parts[0][0] + (1 - trust) * parts[1][0]
    np.testing.assert_allclose(found.heat, sigmoid(expected), atol=1e-4)
    presence = trust * parts[0][1] + (1 - trust) * parts[1][1]
    assert found.presence == pytest.approx(presence, abs=1e-4)
    assert parts[0][1] != pytest.approx(parts[1][1], abs=0.05)


def test_a_second_head_has_what_the_first_leaves_over() -> None:
    torch.manual_seed(5)
    config = TextHeadConfig(in_channels=sum(CHANNELS), dim=8, depth=1)
    first, second = TextHead(config), TextHead(config)
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    # Half of the trust in the first, three quarters in the second: a half, 3 and 1 eighth.
    few = KnownWords(axis(0)[None], torch.tensor([SUPPORT]), ["mug"])
    more = KnownWords(axis(0, 0.99)[None], torch.tensor([3 * SUPPORT]), ["cup"])
    words = Dictionary({"mug": axis(0), "other": axis(3)})
    both = PocketGrounder(
        first, few, TwoBlobs(), object_head(), further=(second, more), text_encoder=words
    ).eval()
    views = both.look(IMAGE, features_of(maps_of(6, 9)), INPUT_SIZE)
    (found,) = both.ground(["mug"], views)
    shares = (0.5, 0.375, 0.125)
    alone = [
        PocketGrounder(head, few, TwoBlobs(), object_head()).eval() for head in (first, second)
    ]
    seen = [
        head_says(grounder, replace(views, cells=(cells,)), axis(0))
        for grounder, cells in zip(alone, views.cells, strict=True)
    ]
    seen.append(conse_says(both, views, axis(0)))
    logits = sum(share * heat for share, (heat, _) in zip(shares, seen, strict=True))
    np.testing.assert_allclose(found.heat, sigmoid(logits), atol=1e-4)
    presence = sum(share * there for share, (_, there) in zip(shares, seen, strict=True))
    assert found.presence == pytest.approx(presence, abs=1e-4)
    assert [relative.word for relative in both.nearest_taught(axis(0)[None])] == ["mug"]


def test_a_list_of_phrases_equals_one_by_one(grounder, views) -> None:
    phrases = [*VECTORS, "taught"]
    together = grounder.ground(phrases, views)
    assert [found.phrase for found in together] == phrases
    for phrase, found in zip(phrases, together, strict=True):
        (alone,) = grounder.ground([phrase], views)
        np.testing.assert_allclose(found.heat, alone.heat, atol=1e-5)
        assert found.presence == pytest.approx(alone.presence, abs=1e-5)


def test_heat_that_is_nowhere_is_finite(grounder, views, monkeypatch) -> None:
    monkeypatch.setattr(TwoBlobs, "peak", 0.0)
    (found,) = grounder.ground(["new"], views)
    np.testing.assert_allclose(
        found.heat, sigmoid(np.float64(-CONSE_GAIN * CONSE_LEVEL)), rtol=1e-4
    )


def test_the_text_encoder_is_loaded_at_the_first_phrase(grounder, views) -> None:
    known = KnownWords(axis(0)[None], torch.ones(1))
    own = PocketGrounder(grounder.heads[0], known, TwoBlobs(), object_head())
    assert "text_encoder" not in vars(own)
    own.look(IMAGE, features_of(maps_of(6, 9)), INPUT_SIZE)
    assert "text_encoder" not in vars(own)
    assert own.ground(["a cat"], views)[0].phrase == "a cat"
    assert "text_encoder" in vars(own)


def test_trust_rises_with_similarity() -> None:
    low, high = TRUST_RANGE
    known = KnownWords(axis(0)[None], torch.tensor([MANY]))
    cosines = [1.0, high, 0.75 * high + 0.25 * low, (low + high) / 2, low, 0.0, -0.9]
    found = known.trust(torch.stack([axis(0, cosine) for cosine in cosines]))
    np.testing.assert_allclose(found, [1, 1, 0.75, 0.5, 0, 0, 0], atol=1e-4)


def test_trust_rises_with_the_pictures_of_the_word() -> None:
    pictures = torch.tensor([0.0, SUPPORT / 3, SUPPORT, 3 * SUPPORT, MANY])
    known = KnownWords(torch.stack([axis(i) for i in range(5)]), pictures)
    found = known.trust(torch.stack([axis(i) for i in range(6)]))
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 1, 0], atol=1e-4)


def test_a_like_word_of_many_pictures_may_count_more_than_the_same_word_of_few() -> None:
    low, high = TRUST_RANGE
    like = axis(0, 0.2 * low + 0.8 * high)
    known = KnownWords(torch.stack([axis(0), like]), torch.tensor([SUPPORT / 9, MANY]))
    (trust,) = known.trust(axis(0)[None])
    assert float(trust) == pytest.approx(0.8, abs=1e-4)  # its own pictures alone give 0.1


def stored_head(path: Path, **changes: Tensor | None) -> tuple[Path, dict[str, Tensor]]:
    """A file as the training writes it, in halves; entries may be exchanged or left out."""
    torch.manual_seed(1)
    state = {name: value.half() for name, value in TextHead().state_dict().items()}
    state["known.embeddings"] = torch.stack([axis(3), axis(4, 0.5)]).half()
    state["known.pictures"] = torch.tensor([12, 300], dtype=torch.int32)
    state = {k: v for k, v in {**state, **changes}.items() if v is not None}
    save_file(state, path / "text.safetensors", metadata={"words": '["sofa", "couch"]'})
    return path / "text.safetensors", state


def test_a_stored_head_comes_back_with_its_words(tmp_path: Path) -> None:
    path, state = stored_head(tmp_path)
    head, known = load_text_head(path)
    for name, value in head.state_dict().items():
        assert torch.equal(value, state[name].float())
    assert torch.equal(known.embeddings, state["known.embeddings"].float())
    assert known.pictures.tolist() == [12, 300]
    assert known.names == ("sofa", "couch")
    assert known.trust(torch.stack([axis(3), axis(9)])).tolist() == pytest.approx(
        [12 / (12 + SUPPORT), 0]
    )


REFUSAL = r"(?s)text\.safetensors: expected the weights of the text head.*reinstall promptseg"


@pytest.mark.parametrize(
    "changes",
    [
        {"known.pictures": None},
        {"known.embeddings": None},
        {"norm.weight": None},
        {"norm.weight": torch.ones(7)},
        {"something.else": torch.ones(1)},
    ],
    ids=["no-pictures", "no-words", "a-lack", "a-wrong-shape", "too-much"],
)
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, changes) -> None:
    path, _ = stored_head(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=REFUSAL):
        load_text_head(path)


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    with pytest.raises(CheckpointError, match=REFUSAL):
        load_text_head(path)
    save_file({"a": torch.ones(1)}, path)  # without its words
    with pytest.raises(CheckpointError, match=REFUSAL):
        load_text_head(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=REFUSAL):
        load_text_head(path)


def test_the_nearest_word_is_told_with_its_pictures(grounder, monkeypatch) -> None:
    monkeypatch.setattr(grounder.known[0], "names", ("sofa",))
    monkeypatch.setattr(grounder.conse, "alike", 0.6)
    text = torch.stack([axis(0, 0.8), axis(0, 0.2)])
    assert grounder.relatives(text) == [
        Relative("sofa", pytest.approx(0.8), int(MANY)),
        Relative("blob", pytest.approx(0.6)),
    ]


@pytest.mark.parametrize(
    ("phrase", "other"),
    [
        ("sneaker", "sneakers"), ("a red sneaker", "red sneakers"), ("Dogs", "dog"),
        ("strawberries", "strawberry"), ("berry", "berries"), ("toy", "toys"), ("boxes", "box"),
        ("bench", "benches"), ("glass", None), ("tv", None), ("the", None), ("buses", "buse"),
    ],
)  # fmt: skip
def test_the_other_number_of_a_phrase(phrase, other) -> None:
    assert other_number(phrase) == other


def test_a_phrase_is_read_in_the_number_that_was_taught(grounder, monkeypatch) -> None:
    vectors = VECTORS | {"sneaker": axis(0, 0.8), "sneakers": axis(0, 0.99), "new": axis(1),
                         "news": axis(2)}  # fmt: skip
    monkeypatch.setattr(grounder, "_given_text_encoder", Dictionary(vectors))
    monkeypatch.delitem(grounder.__dict__, "text_encoder", raising=False)
    monkeypatch.setattr(grounder.conse, "alike", 0.5)
    found = grounder.encode(["sneaker", "new", "taught"])
    assert torch.equal(found, torch.stack([vectors["sneakers"], axis(1), axis(0)]))
    monkeypatch.delitem(grounder.__dict__, "text_encoder", raising=False)


def test_a_phrase_like_no_word_comes_with_a_hint(grounder, views, monkeypatch) -> None:
    assert [found.hint for found in grounder.ground(["taught", "new"], views)] == ["", ""]
    monkeypatch.setattr(grounder.conse, "alike", LEAST_LIKE - 0.01)
    known, unknown = grounder.ground(["taught", "new"], views)
    assert known.hint == ""
    assert unknown.hint == ("no word like it is known, the nearest is 'blob'; words are English")


def test_a_colour_is_looked_for_in_the_pixels(grounder, views, monkeypatch) -> None:
    # ConSE's blob for odd axes lies in the right half, which is red.
    monkeypatch.setitem(grounder.text_encoder.vectors, "new", VECTORS["new"])
    plain, red, blue = (grounder.ground([p], views)[0] for p in ("new", "red new", "blue new"))
    assert red.phrase == "red new"
    assert red.presence == pytest.approx(plain.presence, abs=1e-6)
    hot = plain.heat >= 0.5
    np.testing.assert_allclose(red.heat[hot], plain.heat[hot])
    assert blue.presence == 0
    assert blue.heat[hot].max() == 0
