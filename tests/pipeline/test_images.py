from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from promptseg.models.errors import InputError
from promptseg.pipeline.images import load_image, load_mask


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_png_is_read_exactly(tmp_path: Path, gradient_image: np.ndarray) -> None:
    path = save(Image.fromarray(gradient_image), tmp_path / "a.png")
    for source in (path, str(path), Image.fromarray(gradient_image), gradient_image):
        image = load_image(source)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, gradient_image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    tmp_path: Path, gradient_image: np.ndarray, orientation: int
) -> None:
    # How a camera stores an upright scene under each tag (EXIF 2.32, tag 0x0112), undone by hand.
    stored = {
        1: gradient_image,
        2: gradient_image[:, ::-1],
        3: gradient_image[::-1, ::-1],
        4: gradient_image[::-1],
        5: gradient_image.transpose(1, 0, 2),
        6: np.rot90(gradient_image, 1),
        7: gradient_image[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(gradient_image, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    path = save(picture, tmp_path / "rotated.png", exif=exif)
    np.testing.assert_array_equal(load_image(path), gradient_image)


def test_broken_exif_does_not_hinder(tmp_path: Path, gradient_image: np.ndarray) -> None:
    path = save(
        Image.fromarray(gradient_image), tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\xff"
    )
    np.testing.assert_array_equal(load_image(path), gradient_image)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_opaque_modes_give_what_pillow_gives_as_rgb(gradient_image: np.ndarray, mode: str) -> None:
    picture = Image.fromarray(gradient_image).convert(mode)
    np.testing.assert_array_equal(load_image(picture), np.asarray(picture.convert("RGB")))


def test_transparent_pixels_lie_over_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    expected = np.array([[[255, 0, 0], [255, 255, 255], [127, 127, 127]]], np.uint8)
    np.testing.assert_array_equal(load_image(rgba), expected)
    np.testing.assert_array_equal(load_image(Image.fromarray(rgba)), expected)


def test_grey_with_alpha_and_transparent_palette_lie_over_white(tmp_path: Path) -> None:
    grey = np.array([[[10, 255], [10, 0]]], np.uint8)
    expected = np.array([[[10, 10, 10], [255, 255, 255]]], np.uint8)
    np.testing.assert_array_equal(load_image(Image.fromarray(grey, "LA")), expected)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 10, 10, 90, 80, 70])
    palette.putpixel((1, 0), 1)
    path = save(palette, tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(load_image(path), expected)

    keyed = Image.fromarray(np.array([[[10, 10, 10], [1, 2, 3]]], np.uint8))
    path = save(keyed, tmp_path / "keyed.png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(load_image(path), expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_grey_is_scaled_by_its_depth(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    values = np.array([[0, top // 2, top]], np.uint16)
    path = save(Image.fromarray(values), tmp_path / "deep.png")
    grey = load_image(path)
    assert grey.shape == (1, 3, 3)
    assert grey[0, :, 0].tolist() == [0, 127, 255]
    assert (grey == grey[..., :1]).all()


def test_32_bit_integers_and_floats_are_scaled_by_their_range(tmp_path: Path) -> None:
    integers = save(
        Image.fromarray(np.array([[-5, 0, 1_000_000]], np.int32)), tmp_path / "integers.tif"
    )
    assert load_image(integers)[0, :, 0].tolist() == [0, 0, 255]
    floats = save(
        Image.fromarray(np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)), tmp_path / "floats.tif"
    )
    assert load_image(floats)[0, :, 0].tolist() == [0, 128, 255, 0]
    flat = Image.fromarray(np.full((2, 2), 0.5, np.float32))
    assert load_image(flat).max() == 0


def test_black_16_bit_stays_black() -> None:
    assert load_image(Image.fromarray(np.zeros((2, 2), np.uint16))).max() == 0


def test_animated_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue", "green")]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = load_image(path)
    assert image.shape == (3, 4, 3)
    assert (image == [255, 0, 0]).all()


def test_one_pixel(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (1, 1), (3, 2, 1)), tmp_path / "dot.png")
    assert load_image(path).tolist() == [[[3, 2, 1]]]


def test_10_000_pixels_wide_and_beyond_pillows_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.new("L", (10_000, 40), 9), tmp_path / "wide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300_000)  # Pillow warns above, refuses at twice
    with pytest.warns(Image.DecompressionBombWarning):  # the caller's own filters decide
        assert load_image(path).shape == (40, 10_000, 3)
    with pytest.raises(InputError, match="more than 0 million pixels"):  # as here: an error
        load_image(path)


def test_no_threads_change_the_filters_of_warnings(tmp_path: Path) -> None:
    path = save(Image.new("L", (300, 200), 9), tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_image, [path] * 64))
    assert warnings.filters == before


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "EPS"),
        (np.arange(1, 28, dtype=">f4").tobytes() + bytes(5000), "like SPIDER"),
        (b"P7\nWIDTH 1\n", "an unknown PNM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_promised_formats_are_opened(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg' is not an image that can be read"):
        load_image(path)


def test_whatever_a_decoder_raises_is_one_line(tmp_path: Path, monkeypatch) -> None:
    path = save(Image.new("L", (3, 2), 9), tmp_path / "a.png")

    def fail(image: Image.Image) -> None:
        raise AttributeError("no such\nattribute")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(InputError, match=r"a\.png' is damaged or truncated \(no such attribute\)"):
        load_image(path)


def test_pixels_without_data_do_not_stretch_a_raster(tmp_path: Path) -> None:
    values = np.array([[-9999, 10.0, 20.0, np.inf, 30.0]], np.float32)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42113] = "-9999"
    tags.tagtype[42113] = 2
    declared = save(Image.fromarray(values), tmp_path / "declared.tif", tiffinfo=tags)
    assert load_image(declared)[0, :, 0].tolist() == [0, 0, 128, 0, 255]
    plain = save(Image.fromarray(values[:, 1:]), tmp_path / "plain.tif")
    assert load_image(plain)[0, :, 0].tolist() == [0, 128, 0, 255]
    assert load_image(Image.fromarray(np.full((2, 2), np.nan, np.float32))).max() == 0
    huge = np.array([[-3e38, 0, 3e38]], np.float32)
    assert load_image(Image.fromarray(huge))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 30}),
        ("a.webp", {"quality": 20}),
        ("a.jp2", {"quality_mode": "rates", "quality_layers": [20]}),
        ("a.tif", {"compression": "jpeg", "quality": 30}),
    ],
)
def test_masks_in_lossy_files_are_read_by_their_half(name, options, tmp_path: Path) -> None:
    mask = np.zeros((64, 64), bool)
    mask[13:41, 9:50] = True
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    path = save(picture, tmp_path / name, **options)
    with Image.open(path) as image:
        stored = np.asarray(image.convert("L"))
    assert ((stored > 0) != mask).mean() > 0.01  # its black is not black
    np.testing.assert_array_equal(load_mask(path), stored > 127)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    array = np.arange(20, dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(load_image(array), np.repeat(array.reshape(5, 4, 1), 3, axis=2))


def test_views_become_contiguous(gradient_image: np.ndarray) -> None:
    flipped = gradient_image[:, ::-1]
    image = load_image(flipped)
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, flipped)


def truncated_jpeg(folder: Path) -> Path:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    path = folder / "cut.jpg"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    return path


def truncated_png(folder: Path) -> Path:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    path = folder / "cut.png"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    return path


def broken_checksum_png(folder: Path) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path = folder / "flipped.png"
    path.write_bytes(data)
    return path


def text_named_jpg(folder: Path) -> Path:
    path = folder / "notes.jpg"
    path.write_text("not a picture\n")
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "empty.png"
    path.touch()
    return path


def loop_of_links(folder: Path) -> Path:
    path = folder / "loop.png"
    path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "missing.jpg", "does not exist"),
        (lambda folder: folder, "is a directory"),
        (lambda folder: folder / ("x" * 300), "is too long for a file name; check the path"),
        (loop_of_links, r"cannot be opened \(Too many levels of symbolic links\); check the path"),
        (text_named_jpg, "is not an image"),
        (empty_file, "is an empty file"),
        (truncated_jpeg, "damaged or truncated"),
        (truncated_png, "damaged or truncated"),
        (broken_checksum_png, "damaged or truncated"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, make, says: str) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        load_image(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_corrupted_bytes_give_an_image_or_an_input_error(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)).save(buffer, kind)
    sound = np.frombuffer(buffer.getvalue(), np.uint8)
    path = tmp_path / "corrupted"
    messages = []
    for _ in range(60):
        data = sound[: rng.integers(1, len(sound) + 1) if rng.random() < 0.3 else None].copy()
        data[rng.integers(0, min(len(data), 200), 2)] = rng.integers(0, 255, 2)
        path.write_bytes(data.tobytes())
        try:
            image = load_image(path)
        except InputError as error:
            messages.append(str(error))
        else:
            assert image.ndim == 3
    assert messages
    assert not any("\n" in message for message in messages)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Image.new("L", (100, 100)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(InputError, match=r"bomb\.png.*scale it down"):
        load_image(path)


def test_empty_and_impossible_paths_and_no_pixels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path is empty"):
        load_image("")
    with pytest.raises(InputError, match=r"'a\\x00b.png' has a null byte"):
        load_image("a\0b.png")
    below_a_file = empty_file(tmp_path) / "below.png"
    with pytest.raises(InputError, match=r"below.png' does not exist"):
        load_image(below_a_file)
    with pytest.raises(InputError, match="0 x 5"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8, not float32.*0..255"),
        (np.zeros((4, 4, 3), np.int64), "uint8, not int64"),
        (np.zeros((4, 4), bool), "uint8, not bool"),
        (np.zeros((3, 4, 5), np.uint8), r"not \(3, 4, 5\); it looks channels-first"),
        (np.zeros((4, 4, 2), np.uint8), r"not \(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"not \(1, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"not \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    ],
)
def test_bad_arrays_show_what_was_found(array: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, [[0]]])
def test_other_types_are_refused(source: object) -> None:
    with pytest.raises(InputError, match=type(source).__name__):
        load_image(source)
