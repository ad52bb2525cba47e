"""Reading an image from any source into upright RGB, (H, W, 3) uint8.

Everything that can be wrong with an image is found here, so that the rest of the pipeline can
rely on what it gets.
"""

from __future__ import annotations

import errno
import math
import stat
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..models.errors import InputError
from .checks import BoolArray, UInt8Array, is_tensor
from .pixels import grey_to_rgb, over_white, rgb_pixels, scale_floats, scale_integers

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8] | Tensor | bytes | BinaryIO"

# The formats that are opened. Pillow knows more, some of which start other programs (EPS) or are
# recognised by a few bytes that a damaged file may have by chance.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000")
if find_spec("PIL.AvifImagePlugin"):  # of Pillow 11.3
    FORMATS = (*FORMATS, "AVIF")
# Of a mask in one of these, black is black only nearly; in TIFF it depends on the compression.
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "HEIF")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_NODATA_TAG = 42113  # GDAL's: the value of pixels that hold no measurement
# The first bytes of a file of ISO's base media format: the size, "ftyp" and the main brand.
_HEIF_HEAD = 12
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION_TAG = 274


MaskSource: TypeAlias = "str | Path | Image.Image | NDArray[np.generic] | Tensor | bytes | BinaryIO"


def load_image(source: ImageSource, *, frame: int = 0) -> UInt8Array:
    """Return the image as upright RGB.

    The EXIF orientation is applied, transparent pixels are laid over white, and grey becomes three
    equal channels. HEIC is read if the package pillow-heif is installed. Deeper
    than 8 bits: integers are scaled by the bit depth that holds their maximum (8, 10, 12, 14 or
    16 bits, so a 12-bit scan in a 16-bit file is not black), floats by the range of their valid
    pixels: NaN, infinity and the value that a GeoTIFF declares as no data become 0.

    Args:
        source: A path, a Pillow image, an image file's bytes, an open binary file, a uint8 array
            of (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, or a uint8 tensor of these
            shapes or (C, H, W), on any device. Three sizes that fit both orders are read as
            (H, W, C).
        frame: Which page or frame of a file or a Pillow image, from 0.

    Returns:
        (H, W, 3) uint8, C-contiguous. An RGB array is returned as it is, not copied.

    Raises:
        InputError: The file is missing, is not an image, is damaged, has no pixels or too many, or
            no such frame; or the array has another type or shape. The message is one line and names
            the file.
    """

    def from_pillow(image: Image.Image, name: str) -> UInt8Array:
        return _from_pillow(_at_frame(image, frame, name), name)

    return _load(source, "image", "a uint8 array (H, W, 3)", from_pillow, _from_array)


def load_own_image(source: ImageSource) -> UInt8Array:
    """Load an image as :func:`load_image` does, into pixels that the caller cannot write to.

    An array is copied, unless it is read-only and not the view of another one.
    """
    pixels = load_image(source)
    shared = isinstance(source, np.ndarray) and np.shares_memory(pixels, source)
    fixed = pixels.flags.owndata and not pixels.flags.writeable
    return pixels.copy() if shared and not fixed else pixels


def load_mask(source: MaskSource) -> BoolArray:
    """Return a mask: what is not zero is the object.

    Args:
        source: A path, a Pillow image, an image file's bytes, an open binary file, or an array or
            tensor of bool or whole numbers (H, W) or (H, W, 1). Of a picture with a palette the
            numbers count, of one in colour what is not black; in formats that lose detail (JPEG,
            WebP, JPEG 2000, AVIF) greys below 128 count as black, since their black is not exact.

    Returns:
        (H, W) bool.

    Raises:
        InputError: As for :func:`load_image`.
    """
    array = "a bool or uint8 array (H, W)"
    return _load(source, "mask", array, _mask_from_pillow, _mask_from_array)


def _mask_from_array(array: NDArray[np.generic]) -> BoolArray:
    if array.dtype.kind not in "bui":
        raise InputError(
            f"a mask array must be bool or uint8, not {array.dtype}; compare it with a threshold"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise InputError(f"a mask array must be (H, W), not {array.shape}")
    return np.asarray(array != 0)


def _mask_from_pillow(image: Image.Image, name: str) -> BoolArray:
    if 0 in image.size:
        raise InputError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    lossy = image.format in _LOSSY or image.info.get("compression") in _LOSSY_TIFF
    image.load()
    image = _upright(image)
    if image.mode not in ("1", "L", "P", "I", "I;16", "F"):
        # Opaque colours: the object is what is seen and not black.
        rgba = np.asarray(image.convert("RGBA"))
        values = rgba[..., :3].max(-1) * (rgba[..., 3] > 0)
    else:
        values = np.asarray(image)
    return np.asarray(values > 127) if lossy else np.asarray(values != 0)


_Pixels = TypeVar("_Pixels", UInt8Array, BoolArray)


def _load(
    source: object,
    kind: str,
    array: str,
    from_pillow: Callable[[Image.Image, str], _Pixels],
    from_array: Callable[[NDArray[np.generic]], _Pixels],
) -> _Pixels:
    """Read an image or a mask from whatever holds it."""
    if isinstance(source, np.ndarray):
        return from_array(np.asarray(source))  # subclasses index otherwise
    if is_tensor(source):
        return from_array(_channels_last(source.detach().cpu().numpy()))
    if isinstance(source, Image.Image):
        return _decode(lambda: from_pillow(source, f"the {kind}"), f"the {kind}")
    if isinstance(source, (str, Path)):
        return _from_path(source, from_pillow)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(BytesIO(source), f"the {kind}", from_pillow)
    if hasattr(source, "read") and hasattr(source, "seek"):
        return _from_stream(cast("BinaryIO", source), f"the {kind}", from_pillow)
    article = "an" if kind == "image" else "a"
    raise InputError(
        f"{article} {kind} must be a path, a PIL.Image, a file's bytes, an open binary file, a "
        f"tensor or {array}, not {type(source).__name__}"
    )


def _channels_last(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Bring (C, H, W), the order of tensors, to (H, W, C)."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        return np.moveaxis(array, 0, 2)
    return array


def _from_path(source: str | Path, read: Callable[[Image.Image, str], _Pixels]) -> _Pixels:
    name = repr(str(source))
    if str(source) == "":
        raise InputError("the image path is empty; give the path of an image file")
    path = Path(source)
    try:
        check_file(path, name)
        return _from_stream(path, name, read)
    except PermissionError as error:
        raise InputError(f"{name} may not be read; check its permissions") from error


def _from_stream(
    source: Path | BinaryIO, name: str, read: Callable[[Image.Image, str], _Pixels]
) -> _Pixels:
    def decode() -> _Pixels:
        with open_picture(source, name) as image:
            return read(image, name)

    return _decode(decode, name)


def open_picture(source: Path | BinaryIO, name: str) -> Image.Image:
    """Open a file of a promised format with Pillow, without decoding its pixels.

    Raises:
        InputError: It is HEIC, and pillow-heif is not installed; the message names the file.
        UnidentifiedImageError: It is of no promised format.
        Exception: Whatever a decoder raises on damaged data.
    """
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        if not _is_heif(source):
            raise
        if find_spec("pillow_heif") is None:
            raise InputError(
                f"{name} is HEIC, which needs pillow-heif; run: pip install 'promptseg[heic]'"
            ) from None
        from pillow_heif import HeifImageFile

        # Not its register_heif_opener(), which would change Pillow for the whole process.
        read = cast("Callable[[Path | BinaryIO], Image.Image]", HeifImageFile)
        image = read(source)
        if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
            image.close()
            raise Image.DecompressionBombError("too many pixels") from None
        return image


def _is_heif(source: Path | BinaryIO) -> bool:
    """Return whether a file says that it is HEIC or HEIF."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(_HEIF_HEAD)
    else:
        source.seek(0)
        head = source.read(_HEIF_HEAD)
        source.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _at_frame(image: Image.Image, frame: int, name: str) -> Image.Image:
    if frame:
        try:
            image.seek(frame)
        except EOFError as error:
            number = int(getattr(image, "n_frames", 1))
            raise InputError(f"{name} has no frame {frame}: there are {number}, from 0") from error
    return image


def _decode(read: Callable[[], _Pixels], name: str) -> _Pixels:
    """Run a decoder; whatever goes wrong becomes one line."""
    try:
        return read()
    except (InputError, PermissionError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not an image that can be read; give a JPEG, PNG, WebP, TIFF, BMP, GIF, "
            "JPEG 2000, AVIF or HEIC"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # The warning comes here where the caller has made warnings errors.
        most = 2 if isinstance(error, Image.DecompressionBombError) else 1
        limit = most * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(
            f"{name} has more than {limit / 1e6:.0f} million pixels; scale it down first"
        ) from error
    except Exception as error:  # a decoder may raise anything on damaged data
        raise InputError(
            f"{name} is damaged or truncated ({_one_line(error)}); save or download it again"
        ) from error


def check_file(path: Path, name: str) -> None:
    """Refuse what is no file with something in it."""
    if "\0" in str(path):
        raise InputError(f"{name} has a null byte in it, which no path has; check the path")
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{name} does not exist; check the path") from error
    except PermissionError:
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{name} is too long for a file name; check the path") from error
        raise InputError(f"{name} cannot be opened ({error.strerror}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name} is a directory; give the path of an image file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name} is not a regular file; give the path of an image file")
    if status.st_size == 0:
        raise InputError(f"{name} is an empty file; save or download the image again")


def _from_pillow(image: Image.Image, name: str) -> UInt8Array:
    if 0 in image.size:
        raise InputError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    image.load()
    nodata = _nodata(image)
    image = _upright(image)
    if image.mode.startswith("I"):
        return grey_to_rgb(scale_integers(np.asarray(image)))
    if image.mode == "F":
        return grey_to_rgb(scale_floats(np.asarray(image), nodata))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")))
    return rgb_pixels(image)


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Upright ones are returned as they are, not copied.
        turned = image.getexif().get(_ORIENTATION_TAG, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:
        # Broken metadata says nothing about the pixels, which are already decoded.
        return image


def _from_array(array: NDArray[np.generic]) -> UInt8Array:
    if array.dtype != np.uint8:
        remedy = (
            "scale it to 0..255 and convert with .astype(np.uint8)"
            if array.dtype.kind == "f"
            else "convert it to 8 bits"
        )
        raise InputError(f"an image array must be uint8, not {array.dtype}; {remedy}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; it looks channels-first: use array.transpose(1, 2, 0)"
        raise InputError(
            f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"not {array.shape}{hint}"
        )
    if array.size == 0:
        raise InputError(f"the image array has no pixels: its shape is {array.shape}")
    pixels = array.astype(np.uint8, copy=False)
    if channels == 4:
        return over_white(pixels)
    if channels == 1:
        return grey_to_rgb(pixels.reshape(array.shape[:2]))
    return np.ascontiguousarray(pixels)


def _nodata(image: Image.Image) -> float | None:
    """The value of pixels without a measurement that a GeoTIFF declares, if it does."""
    tags = getattr(image, "tag_v2", None)
    try:
        return None if tags is None else float(str(tags[_NODATA_TAG]).strip(" \0"))
    except (KeyError, ValueError):
        return None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
