"""Rasters that are read in windows, among images that are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.raster import Raster
    from ..exports.run import Exports


def check_outputs(
    path: str, picture: UInt8Array | Raster, exports: Exports | None, *, own_files: bool
) -> None:
    """Refuse, before it is segmented, what could not be written.

    Args:
        path: Path of the image.
        picture: The image.
        exports: The formats that are written, if any.
        own_files: Whether an overlay and masks are.

    Raises:
        InputError: A format cannot hold the image, or a raster is too large for what is drawn.
    """
    if exports is not None:
        exports.check(path)
    used = use_of_pixels(exports, own_files=own_files)
    if used:
        from ...pipeline.raster import Raster

        if isinstance(picture, Raster):
            picture.check_in_memory(used)


def use_of_pixels(exports: Exports | None, *, own_files: bool) -> str:
    """Return what of the outputs draws the image itself; "" if nothing does."""
    if own_files:
        return "an overlay and PNGs"
    return "" if exports is None else ", ".join(exports.needing_pixels)


def drawn_pixels(picture: UInt8Array | Raster, used: str) -> UInt8Array | None:
    """Return the pixels of an image; None for a raster of which nothing is drawn."""
    from ...pipeline.raster import Raster

    if not isinstance(picture, Raster):
        return picture
    return picture.pixels() if used else None
