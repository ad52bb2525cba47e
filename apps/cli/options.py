"""Options that several commands share: which models to load, and where results go.

Nothing here imports torch: options are read, and most mistakes are reported, before it is loaded.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...models.errors import InputError, ModelNotFoundError
from ...models.exported.manifest import RUNTIMES
from ...pipeline.presets.catalog import PRESETS, get_preset
from ...pipeline.presets.exported import check_exported
from ..exports import FORMATS, GEO_FORMATS, POLYGON_FORMATS

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

# As in models.device and the strategies of references, whose modules import torch.
DTYPES = ("auto", "fp32", "bf16", "fp16")
STRATEGIES = ("prototype", "bidirectional", "graph")
# As in pipeline.cache.
CACHE_GB = 10.0

Preset = Annotated[
    str,
    typer.Option(
        "--preset", help="Which set of models to use.", autocompletion=lambda: list(PRESETS)
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="Where the models run: cpu, cuda, cuda:0, mps or xpu.")
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Precision of the models: fp32, bf16, fp16, or auto, which is bf16 where the device "
        "has it in hardware and fp32 elsewhere.",
        autocompletion=lambda: list(DTYPES),
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        help="Folder with the preset's weights; by default the one that PROMPTSEG_WEIGHTS names, "
        "then the Hugging Face cache.",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        autocompletion=lambda: list(STRATEGIES),
        help="How examples are matched: prototype, bidirectional or graph. Default: the "
        "preset's choice.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Folder to keep encoded images in: another query on the same images is then several "
        "times as fast.",
    ),
]
CacheSize = Annotated[
    float,
    typer.Option(
        "--cache-gb",
        metavar="GB",
        help="Most gigabytes in --cache; what was not used for the longest time goes first.",
    ),
]
Exported = Annotated[
    Path | None,
    typer.Option(
        "--exported",
        metavar="DIR",
        help="Encode images and decode masks from a folder that `promptseg export` wrote, on the "
        "CPU; text and references stay in torch.",
    ),
]
ExportedRuntime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="What runs --exported: onnx (onnxruntime) or openvino. Default: the one that it was "
        "written for.",
        autocompletion=lambda: list(RUNTIMES),
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for result.json, the overlay and one PNG per mask. Several images get a "
        "subfolder each. Default: promptseg-output/IMAGE.",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        autocompletion=lambda: [*FORMATS, *GEO_FORMATS],
        help="Write this format instead, for all images together, into a subfolder of its name. "
        f"Repeat it for several: {', '.join(FORMATS)}; for georeferenced TIFFs "
        f"{', '.join(GEO_FORMATS)}.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue an interrupted run: skip the images already done."),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Also replace files in --out that promptseg did not write, that were changed since, "
        "or that answer for another image. Inputs are never replaced.",
    ),
]
Simplify = Annotated[
    float,
    typer.Option(
        "--simplify",
        metavar="PIXELS",
        help=f"Let polygons (--format {', '.join(POLYGON_FORMATS)}) deviate by this much: fewer "
        "points, which are easier to edit.",
    ),
]
Frames = Annotated[
    bool,
    typer.Option("--frames", help="Segment every page of a TIFF and every frame of an animation."),
]
Tiles = Annotated[
    str | None,
    typer.Option(
        "--tiles",
        metavar="auto|SIDE|HxW",
        help="Also look at overlapping tiles of each image, which finds what is small in it; auto "
        "takes tiles of the size that the model works at. TIFFs are read tile by tile.",
    ),
]
AllowUrls = Annotated[
    bool, typer.Option("--allow-urls", help="Fetch images that are given by http or https URL.")
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print only JSON, one line per image; write files only if --out or --format is given.",
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which models to load and how they run.

    Attributes:
        preset: Name of the set of models.
        device: Where they run.
        dtype: What they compute in.
        weights: Folder to look for weights in first.
        strategy: How examples are matched; None leaves it to the preset.
        cache: Folder to keep encoded images in; None for none.
        cache_gb: Most gigabytes in it.
        exported: Exported folder that masks are decoded from; None for torch.
        runtime: What runs it; None for the one that it was written for.

    Raises:
        InputError: The device or dtype has no valid name, the folder of weights does not exist,
            the cache cannot be one, or the exported folder cannot be run for the preset.
        ModelNotFoundError: There is no such preset or strategy.
        CheckpointError: The exported folder holds no model.
    """

    preset: str = "pocket"
    device: str = "cpu"
    dtype: str = "auto"
    weights: Path | None = None
    strategy: str | None = None
    cache: Path | None = None
    cache_gb: float = CACHE_GB
    exported: Path | None = None
    runtime: str | None = None

    def __post_init__(self) -> None:
        preset = get_preset(self.preset)
        if self.strategy is not None and self.strategy not in STRATEGIES:
            raise ModelNotFoundError(
                f"no matching strategy is called {self.strategy!r}; there are "
                f"{', '.join(STRATEGIES)}"
            )
        if self.dtype not in DTYPES:
            raise InputError(f"there is no dtype {self.dtype!r}; use {', '.join(DTYPES)}")
        # Only the name: whether the device is there is known once torch is loaded.
        if not re.fullmatch(r"(cpu|mps|cuda|xpu)(:\d+)?", self.device):
            raise InputError(
                f"there is no device {self.device!r}; use cpu, cuda, cuda:0, mps or xpu"
            )
        if self.weights is not None and not _is_folder(self.weights):
            raise InputError(
                f"--weights: {str(self.weights)!r} is not a folder; give one that holds weights"
            )
        if self.exported is not None:
            check_exported(preset.sam, self.exported, self.runtime, self.device)
        elif self.runtime is not None:
            raise InputError("--runtime is what runs --exported; give the exported folder as well")
        if not 0 < self.cache_gb < math.inf:
            raise InputError(f"--cache-gb must be a positive number, not {self.cache_gb}")
        if self.cache is not None and os.path.lexists(self.cache) and not _is_folder(self.cache):
            raise InputError(f"--cache: {str(self.cache)!r} is not a folder; give another")

    def load(self) -> Pipeline:
        """Load the preset; this is where torch is imported.

        Raises:
            InputError: The device cannot be used here, or cannot compute in the dtype.
            ModelNotFoundError: The preset or the strategy is unknown.
            CheckpointError: Weights are missing or broken.
        """
        with _without_collecting():
            from ...pipeline.cache.store import EmbeddingCache
            from ...pipeline.presets.load import load

        cache = self.cache
        pipeline = load(
            self.preset,
            device=self.device,
            dtype=self.dtype,
            weights=self.weights,
            strategy=self.strategy,
            exported=self.exported,
            runtime=self.runtime,
            cache=None if cache is None else EmbeddingCache(cache, max_gb=self.cache_gb),
        )
        segmenter = pipeline.segmenter
        logger.debug("%s computes in %s on %s", self.preset, segmenter.dtype, segmenter.device)
        return pipeline

    def describe(self) -> dict[str, object]:
        """Return the fields as JSON can hold them."""
        weights = None if self.weights is None else str(self.weights)
        return {
            "preset": self.preset,
            "device": self.device,
            "strategy": self.strategy,
            "dtype": self.dtype,
            "weights": weights,
            "exported": None if self.exported is None else str(self.exported),
            "runtime": self.runtime,
        }


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor later among what they define.

    All of it stays, and looking through it again and again takes a tenth of torch's import.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def read_tiles_option(value: str | None) -> str | tuple[int, int] | None:
    """Parse the value of --tiles: "auto", a side, or HxW, in pixels.

    Raises:
        InputError: It is something else, or a side is too small or too large.
    """
    from ...pipeline.tiling.layout import read_tiles

    if value is None or value == "auto":
        return value
    sides = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", value)
    if sides is None:
        raise InputError(f"--tiles: {value!r} is not auto, a side such as 1024, or HxW in pixels")
    try:
        return read_tiles((int(sides[1]), int(sides[2] or sides[1])), 0)
    except InputError as error:
        raise InputError(f"--tiles: {error}") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or a null byte
        return False
