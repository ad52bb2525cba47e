"""The web app's engine: nothing is computed twice, nothing is mixed up, memory is bounded."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptseg.apps.service.cache import ByteCache
from promptseg.apps.web.engine import Engine, read_painted
from promptseg.apps.web.request import Example, MarkHistory, Request, Setup, read_phrases
from promptseg.apps.web.results import choose_part
from promptseg.models.embedding import ImageEmbedding, ImageFeatures
from promptseg.models.errors import InputError
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.query import Query
from promptseg.pipeline.result import Result
from promptseg.pipeline.scoring.ranking import RankingConfig, rank


@dataclass
class FakePipeline:
    """Finds the picture's upper part, as many rows as its first pixel's red says, and counts."""

    encoded: int = 0
    queries: list[Query | str] = field(default_factory=list)

    def encode_image(self, image: np.ndarray) -> ImageEmbedding:
        self.encoded += 1
        size = image.shape[0], image.shape[1]
        return ImageEmbedding(ImageFeatures(torch.zeros(1)), size, size, image=image)

    def propose(self, embedding: ImageEmbedding, query: Query | str) -> Proposals:
        self.queries.append(query)
        pixels = embedding.pixels()
        masks = np.zeros((3, *pixels.shape[:2]), bool)
        for i, mask in enumerate(masks):
            mask[: pixels[0, 0, 0] - i] = True
        scores = np.array([0.9, 0.6, 0.3], np.float32)
        return Proposals.of(masks, ["it"] * 3, scores, np.ones(3), np.ones(3))

    def propose_everything(self, embedding: ImageEmbedding, **options: Any) -> Proposals:
        return self.propose(embedding, "everything")

    def rank(self, proposals: Proposals, **options: Any) -> Result:
        chosen = {name: value for name, value in options.items() if value is not None}
        return rank(proposals, RankingConfig(nms_iou=0.999, **chosen))


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


def make_engine(pipeline: FakePipeline, max_pixels: int = 10**6, **bounds: int) -> Engine:
    return Engine(max_pixels, lambda preset, *, device: pipeline, **bounds)


def picture(folder: Path, rows: int, size: tuple[int, int] = (40, 50)) -> Path:
    pixels = np.full((*size, 3), rows, np.uint8)
    path = folder / f"{rows}.png"
    Image.fromarray(pixels).save(path)
    return path


def ask(path: Path, **changes: Any) -> Request:
    return Request(Setup(), path, **changes)


def test_a_picture_is_encoded_once_and_masks_are_ranked_again(
    tmp_path: Path, pipeline: FakePipeline
) -> None:
    engine = make_engine(pipeline)
    request = ask(picture(tmp_path, 20), phrases=("it",))
    assert len(engine.answer(request)) == 3
    assert len(engine.answer(request, top_k=1)) == 1
    assert len(engine.answer(request, min_score=0.5)) == 2
    assert (pipeline.encoded, len(pipeline.queries)) == (1, 1)
    click = ask(request.picture, marks=MarkHistory().add_click((3, 4), 1).add_click((1, 1), 0))
    engine.answer(click)
    assert (pipeline.encoded, len(pipeline.queries)) == (1, 2)
    assert pipeline.queries[1].marks.points.tolist() == [[3, 4], [1, 1]]
    assert pipeline.queries[1].marks.point_labels.tolist() == [1, 0]


def test_what_the_cache_let_go_is_computed_again(tmp_path: Path, pipeline: FakePipeline) -> None:
    engine = make_engine(pipeline, embedding_capacity=40 * 50 * 3 * 2 + 100, proposal_capacity=1)
    requests = [ask(picture(tmp_path, rows), phrases=("it",)) for rows in (10, 20, 30)]
    for _ in range(2):
        areas = [int(engine.answer(request).masks[0].sum()) for request in requests]
        assert areas == [500, 1000, 1500]
    assert pipeline.encoded == 6
    assert len(engine.embeddings.values) == 2
    assert len(engine.proposals.values) == 0


def test_many_users_at_once_get_their_own(tmp_path: Path, pipeline: FakePipeline) -> None:
    engine = make_engine(pipeline, embedding_capacity=40 * 50 * 3 * 3)
    requests = [ask(picture(tmp_path, rows), phrases=("it",)) for rows in range(5, 35)]
    with ThreadPoolExecutor(10) as users:
        results = list(users.map(engine.answer, requests * 3))
    areas = [int(result.masks[0].sum()) for result in results]
    assert areas == [50 * rows for rows in range(5, 35)] * 3
    assert engine.embeddings.values.currsize <= engine.embeddings.values.maxsize


def test_a_preset_is_loaded_once_even_if_many_wait() -> None:
    loaded = []

    def load(preset: str, *, device: str) -> FakePipeline:
        loaded.append((preset, device))
        return FakePipeline()

    engine = Engine(load=load)
    with ThreadPoolExecutor(8) as users:
        found = list(users.map(engine.pipeline, [Setup()] * 8))
    assert loaded == [("pocket", "cpu")]
    assert len(set(map(id, found))) == 1
    engine.pipeline(Setup("base"))
    engine.pipeline(Setup("large"))
    engine.pipeline(Setup())
    assert [name for name, _ in loaded] == ["pocket", "base", "large", "pocket"]


def test_large_pictures_are_scaled_down(tmp_path: Path, pipeline: FakePipeline) -> None:
    engine = make_engine(pipeline, max_pixels=500)
    path = picture(tmp_path, 3, size=(100, 200))
    assert engine.read(path).shape == (15, 31, 3)
    assert engine.original_size(path) == (200, 100)


def test_a_file_that_is_gone_is_told_by_its_name(tmp_path: Path, pipeline: FakePipeline) -> None:
    engine = make_engine(pipeline)
    with pytest.raises(InputError, match=r"^'gone.png' is no longer on the server; upload it"):
        engine.answer(ask(tmp_path / "gone.png", phrases=("it",)))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"^'text.png' is not an image"):
        engine.read(tmp_path / "text.png")


def test_everything_needs_no_second_encoding(tmp_path: Path, pipeline: FakePipeline) -> None:
    engine = make_engine(pipeline)
    path = picture(tmp_path, 9)
    engine.answer(ask(path, phrases=("it",)))
    assert len(engine.answer(ask(path, everything=True), top_k=1)) == 1
    assert pipeline.encoded == 1
    assert pipeline.queries[1:] == ["everything"]


def reference_of(pipeline: FakePipeline, tmp_path: Path, example: Example) -> Any:
    make_engine(pipeline).answer(ask(picture(tmp_path, 20), example=example))
    (reference,) = pipeline.queries[-1].reference
    return reference


def test_what_is_painted_becomes_the_mask(tmp_path: Path, pipeline: FakePipeline) -> None:
    alpha = np.zeros((20, 25, 4), np.uint8)
    alpha[5:10, 5:20, 3] = 255
    png = io.BytesIO()
    Image.fromarray(alpha).save(png, "PNG")
    shown = picture(tmp_path, 7)
    reference = reference_of(pipeline, tmp_path, Example(shown, painted=png.getvalue(), label="x"))
    expected = np.zeros((40, 50), bool)
    expected[10:20, 10:40] = True
    assert np.array_equal(reference.mask, expected)
    assert reference.label == "x"
    with pytest.raises(InputError, match="paint again"):
        read_painted(b"no PNG", (4, 4))


def test_an_uploaded_mask_may_have_another_size_but_not_another_shape(
    tmp_path: Path, pipeline: FakePipeline
) -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[20:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    shown = picture(tmp_path, 7)
    reference = reference_of(pipeline, tmp_path, Example(shown, mask=tmp_path / "mask.png"))
    assert reference.mask.sum() == 10 * 50
    Image.fromarray(mask[:, :50]).save(tmp_path / "narrow.png")
    with pytest.raises(InputError, match=r"the mask is 50 x 80 pixels and its picture 50 x 40"):
        reference_of(pipeline, tmp_path, Example(shown, mask=tmp_path / "narrow.png"))


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (MarkHistory(), "show which object of the example you mean"),
        (MarkHistory().add_click((1, 1), 0), "must be on the object"),
        (MarkHistory().add_click((1, 1), 1).add_box((0, 0), (5, 5)), "either one box or clicks"),
        (MarkHistory().add_box((0, 0), (5, 5)).add_box((0, 0), (6, 6)), "either one box or clicks"),
    ],
)
def test_an_example_must_be_marked_clearly(
    tmp_path: Path, pipeline: FakePipeline, marks: MarkHistory, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        reference_of(pipeline, tmp_path, Example(picture(tmp_path, 7), marks=marks))


def test_marks_are_undone_in_their_order() -> None:
    marks = MarkHistory().add_click((1, 2), 1).add_box((9, 8), (3, 2)).add_click((4, 5), 0)
    assert marks.boxes == ((3, 2, 9, 8),)
    assert marks.undo() == MarkHistory().add_click((1, 2), 1).add_box((3, 2), (9, 8))
    assert marks.undo().undo() == MarkHistory().add_click((1, 2), 1)
    assert MarkHistory().add_click((1, 2), 1).is_lone_click
    assert not marks.is_lone_click
    assert not MarkHistory().add_click((1, 2), 0).has_foreground
    assert not MarkHistory().undo()


def test_phrases_are_read_from_lines_and_commas() -> None:
    assert read_phrases(" red  car,dog;\n\ndog\n cat ,") == ("red car", "dog", "cat")
    assert read_phrases(None) == ()
    with pytest.raises(InputError, match="51 phrases are too many"):
        read_phrases(",".join(map(str, range(51))))


def test_a_whole_and_its_parts_go_by_size(tmp_path: Path, pipeline: FakePipeline) -> None:
    result = make_engine(pipeline).answer(ask(picture(tmp_path, 20), phrases=("it",)))
    result = result[[1, 0, 2]]
    areas = {part: int(choose_part(result, part).masks.sum()) for part in ("whole", "part")}
    assert areas == {"whole": 1000, "part": 950}
    assert choose_part(result, "subpart").masks.sum() == 900
    assert choose_part(result, "best").masks.sum() == 950
    assert len(choose_part(result, "all")) == 3


def test_requests_are_alike_only_if_all_is() -> None:
    one = ask(Path("a.png"), phrases=("it",))
    assert one == ask(Path("a.png"), phrases=("it",))
    for change in (
        {"phrases": ("other",)},
        {"negatives": ("it",)},
        {"setup": Setup("base")},
        {"picture": Path("b.png")},
        {"marks": MarkHistory().add_click((1, 1), 1)},
    ):
        assert replace(one, **change) != one


def test_the_cache_drops_the_least_recently_used_and_refuses_the_too_large() -> None:
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    for name in "abc":
        cache.get(name, lambda: b"1234")
    assert set(cache.values) == {"b", "c"}
    assert cache.get("b", lambda: b"made again") == b"1234"
    cache.get("d", lambda: b"1234")
    assert set(cache.values) == {"b", "d"}
    assert cache.get("large", lambda: b"x" * 11) == b"x" * 11
    assert set(cache.values) == {"b", "d"}
