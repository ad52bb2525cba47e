"""SAM 2 and 2.1 on single images, through transformers' Sam2Model.

Source: Ravi et al. 2024, "SAM 2: Segment Anything in Images and Videos". Masks are those of
transformers. As with the official image predictor, an unstable single mask is replaced by the best
of the several ("dynamic multimask via stability", if the folder's configuration enables it), and
the object score, which serves videos, does not change masks. Unlike the official predictor's, the
low-resolution logits are not clamped to +-32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoint import load_strictly, read_state_dict
from ..embedding import ImageFeatures
from ..errors import CheckpointError
from ..hub.find import find_folder, how_to_fetch
from ..preprocess import to_pixel_values
from .sam import PIXEL_MEAN, PIXEL_STD, Sam, resize

if TYPE_CHECKING:
    from transformers import Sam2Model

# The published folders hold the video model, of which the image model is a part.
_MODEL_TYPES = ("sam2_video", "sam2")
# One matrix under two names; files have either or both.
_POSITIONS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
_REMEDY = (
    "run `hf download facebook/sam2.1-hiera-tiny`, or give the folder of a downloaded "
    "facebook/sam2.1-hiera-{tiny,small,base-plus,large}"
)


@dataclass(frozen=True)
class Sam2Size:
    """What tells the published sizes of SAM 2 apart.

    Attributes:
        blocks_per_stage: Blocks of each stage of the Hiera image encoder.
    """

    blocks_per_stage: tuple[int, ...]


class Sam2(nn.Module):
    """Masks for prompts on an image, with the interface of :class:`~.sam.Sam`.

    Args:
        model: The network.
        model_id: Name of the model.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    mask_threshold = 0.0

    def __init__(self, model: Sam2Model, *, model_id: str = "") -> None:
        super().__init__()
        self.model = model
        self.model_id = model_id
        self.image_size = cast(int, model.prompt_encoder.input_image_size)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.pixel_mean.device

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Size (H, W) of ``mask_input`` and of the low-resolution logits."""
        return self.model.prompt_encoder.mask_input_size

    @property
    def num_multimask_outputs(self) -> int:
        """Number of masks for an ambiguous prompt, besides the single one."""
        return self.model.mask_decoder.num_multimask_outputs

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Stretch an image (H, W, 3) uint8 RGB to the model's square and normalise it.

        Returns:
            Pixel values (1, 3, S, S) and the size (S, S).
        """
        size = (self.image_size, self.image_size)
        mean, std = self.pixel_mean, self.pixel_std
        return to_pixel_values(image, size, mean=mean, std=std, pad_to=size), size

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        """Encode one normalised image (1, 3, S, S)."""
        *fine_to_coarse, embedding = self.model.get_image_embeddings(pixel_values)
        return ImageFeatures(embedding, high_res_features=tuple(reversed(fine_to_coarse)))

    def decode(
        self,
        features: ImageFeatures,
        *,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts on one encoded image; arguments and shapes are those of `Sam.decode`."""
        coords, labels = Sam.pair_points(point_coords, point_labels) or (None, None)
        # transformers takes one mask per image: each prompt gets its own view of the image.
        count = next((len(x) for x in (coords, boxes, mask_input) if x is not None), 1)
        maps = (*reversed(features.high_res_features), features.image_embeddings)
        output = self.model(
            image_embeddings=[x.expand(count, -1, -1, -1) for x in maps],
            input_points=None if coords is None else coords.unsqueeze(1),
            input_labels=None if labels is None else labels.unsqueeze(1).long(),
            input_boxes=None if boxes is None else boxes.unsqueeze(1),
            input_masks=mask_input,
            multimask_output=multimask_output,
        )
        return output.pred_masks[:, 0], output.iou_scores[:, 0]

    def postprocess_masks(
        self,
        logits: Tensor,
        *,
        input_size: tuple[int, int],
        original_size: tuple[int, int],
        columns: tuple[int, int] | None = None,
    ) -> Tensor:
        """Upscale logits (M, 1, h, w), which span the whole image, as `Sam` does."""
        return resize(logits, original_size, columns)


def create_sam2(
    checkpoint: str | Path, *, size: Sam2Size | None = None, device: str | torch.device = "cpu"
) -> Sam2:
    """Load a SAM 2 or 2.1 in evaluation mode.

    Args:
        checkpoint: Folder of a model in the layout of the Hugging Face hub, or the hub id of one
            that is on this machine, such as "facebook/sam2.1-hiera-tiny".
        size: The size that the model must have; None accepts any.
        device: Device to put the model on.

    Returns:
        The model. Its ``model_id`` is the name of the folder, or the part of the hub id after the
        owner.

    Raises:
        CheckpointError: The folder is missing, broken or another model's, or transformers is
            missing or too old.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        folder = find_folder(checkpoint, ("config.json",)) or folder
    if not folder.is_dir():
        command = how_to_fetch(checkpoint)
        remedy = f"run `{command}`, or give the folder of a downloaded one" if command else _REMEDY
        raise CheckpointError(f"there is no folder {checkpoint} with a SAM 2; {remedy}")
    config = _read_config(folder)
    state = read_state_dict(folder)
    for name, other in (_POSITIONS, _POSITIONS[::-1]):
        if name in state:
            state.setdefault(other, state[name])
    model = _build(folder, config)
    if size is not None:
        _check_size(folder, model, size)
    parts = {name.split(".")[0] for name in model.state_dict()}
    of_images = {name: x for name, x in state.items() if name.split(".")[0] in parts}
    load_strictly(model, of_images, source=folder, name="SAM 2", hint=_REMEDY)
    return Sam2(model, model_id=Path(checkpoint).absolute().name).to(device).eval()


def _check_size(folder: Path, model: Sam2Model, size: Sam2Size) -> None:
    vision: Any = model.config.vision_config
    found, expected = list(vision.backbone_config.blocks_per_stage), list(size.blocks_per_stage)
    if found != expected:
        raise CheckpointError(
            f"{folder} holds a SAM 2 of another size: its stages have {found} blocks, expected "
            f"{expected}; give another name or another folder"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    """The content of the folder's config.json."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no config.json of a model; {_REMEDY}") from error
    if model_type not in _MODEL_TYPES:
        raise CheckpointError(f"{folder} holds a model of type {model_type!r}; {_REMEDY}")
    return config


def _build(folder: Path, config: dict[str, Any]) -> Sam2Model:
    """The network with random weights."""
    try:
        # Importing transformers takes seconds, and other models do not need it.
        from transformers import Sam2Config, Sam2Model
    except ImportError as error:
        raise CheckpointError(
            "SAM 2 runs through transformers 4.56 or newer: `pip install -U transformers`"
        ) from error
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    try:
        with torch.random.fork_rng(devices=[]):
            return Sam2Model(Sam2Config(**{part: config[part] for part in parts}))
    except Exception as error:  # its type varies with the version of transformers
        what = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{folder}/config.json does not describe a SAM 2 ({what}); {_REMEDY}"
        ) from error
