"""A data folder of made-up pictures and a training that is over in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import train_pocket
from config import SceneConfig, TrainConfig
from PIL import Image
from torch import Tensor
from train_pocket import Trainer

from promptseg.apps.evaluation.index_folder import VOID
from promptseg.models.pocket.minilm import load_minilm
from promptseg.models.pocket.sam import PocketSamConfig

SIZE = (72, 96)  # (H, W)


def make_picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A disc and a box of own colours on a noisy ground; void around the disc."""
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    image = np.full((*SIZE, 3), rng.integers(60, 120), np.float64)
    ids = np.zeros(SIZE, np.uint8)
    x0, y0 = rng.integers(52, 62), rng.integers(8, 30)
    box = (columns >= x0) & (columns < x0 + 28) & (rows >= y0) & (rows < y0 + 32)
    distance = np.hypot(columns - rng.integers(20, 28), rows - rng.integers(22, 48))
    for i, mask in enumerate((box, distance < 18), start=1):
        image[mask] = rng.permutation([230, 40, 20 + 90 * i])
        ids[mask] = i
    ids[(distance >= 18) & (distance < 20)] = VOID
    noisy = image + rng.normal(size=image.shape) * 12
    return noisy.clip(0, 255).astype(np.uint8), ids


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As each worker of the training; small layers gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Four pictures to train on, of a source that the settings name and of one they do not.

    Two more have words only, one of them with a box.
    """
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines, weak = [], []
    for number in range(6):
        image, ids = make_picture(rng)
        Image.fromarray(image).save(folder / f"{number}.png")
        Image.fromarray(ids).save(folder / f"{number}_ids.png")
        lines.append(
            {
                "image": f"{number}.png",
                "mask": f"{number}_ids.png",
                "source": "made-up" if number % 2 else "voc",
                "split": "train" if number < 4 else "dev",
                "regions": [
                    {"label": "box", "ids": [1], "instances": True},
                    {"label": "disc", "ids": [2], "instances": False},
                ],
            }
        )
        if number < 2:
            boxes = [{"label": "gnome", "box_xyxy": [8, 8, 40, 60]}] if number else []
            row = {"image": f"{number}.png", "source": "shed", "split": "train", "words": ["gnome"]}
            weak.append(row | ({"boxes": boxes} if boxes else {}))
    (folder / "index.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (folder / "weak.jsonl").write_text("\n".join(json.dumps(line) for line in weak))
    return folder


@pytest.fixture(scope="session")
def model_config() -> PocketSamConfig:
    """A pocket SAM for pictures of 64 pixels."""
    return PocketSamConfig(
        image_size=64, embed_dim=16, neck_depth=1, high_res_dims=(8, 4), num_heads=2
    )


@pytest.fixture(scope="session")
def train_config() -> TrainConfig:
    """Steps of two small scenes, half of them plain."""
    return TrainConfig(
        scenes=SceneConfig(
            side=64,
            small_side=64,
            usual=0.9,
            mosaic=0.3,
            paste=0.5,
            paste_sides=(20.0, 40.0),
            paste_sources=("voc",),
            colour=0.3,
        ),
        calm=SceneConfig(side=64, small_side=64, usual=1.0, mosaic=0.0, paste=0.0),
        images=2,
        prompts=3,
        decode=1.0,
        warmup=2,
        learning_rate=3e-3,
        backbone_rate=3e-4,
        ema=0.9,
        cooldown_ema=0.8,
        save_every=4,
        eval_every=12,
        eval_images=1,
    )


class Remembered:
    """MiniLM, loaded once for all trainers, that embeds the same phrases once."""

    def __init__(self) -> None:
        self.minilm = load_minilm()
        self.seen: dict[tuple[str, ...], Tensor] = {}

    def encode(self, phrases: Sequence[str]) -> Tensor:
        key = tuple(phrases)
        if key not in self.seen:
            self.seen[key] = self.minilm.encode(key)
        return self.seen[key]


@pytest.fixture(scope="session")
def build_trainer() -> Callable[..., Trainer]:
    """Builds a trainer, or one of another kind, of Trainer's arguments."""
    minilm = Remembered()

    def build(*args, kind: type[Trainer] = Trainer, **options) -> Trainer:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train_pocket, "load_minilm", lambda: minilm)
            return kind(*args, **options)

    return build
