"""The one type of frames, and what turns others into it."""

import os
import re
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from vmrnn_cli.errors import InputError
from vmrnn_cli.frames import list_images, parse_side, parse_size, to_float, to_uint8, unheard
from vmrnn_cli.readings import UNDECLARED, Declared
from vmrnn_cli.video import open_clip


def test_bytes_survive_the_way_there_and_back():
    levels = np.arange(256, dtype=np.uint8)
    frames = to_float(levels)
    assert (frames.dtype, frames[0], frames[-1]) == (np.float32, 0, 1)
    np.testing.assert_array_equal(to_uint8(frames), levels)
    np.testing.assert_array_equal(to_uint8(frames, peak=0.5)[[0, 64, 200]], [0, 128, 255])
    np.testing.assert_array_equal(to_uint8(np.float32([-1, 0.5, 2])), [0, 128, 255])


def test_floats_stay_as_they_are():
    np.testing.assert_array_equal(to_float(np.array([0.25, 1.5])), np.float32([0.25, 1.5]))


@pytest.mark.parametrize("size", [None, (16, 12)])
def test_values_above_the_divisor_stay_above_one(size):
    """Resizing, too, may bring in no other limits than those of the frame."""
    frames = np.zeros((3, 1, 8, 8), np.float32)
    frames[1, :, 2:6, 2:6] = 150
    with open_clip(frames, divided_by=100.0, size=size) as clip:
        peaks = [float(frame.max()) for frame in clip]
    assert peaks == [0, 1.5, 0]


@pytest.mark.parametrize(
    ("text", "size"),
    [("native", None), ("96", 96), ("40x24", (24, 40)), ("40X24", (24, 40)), (np.int64(7), 7), ([6, 8], (6, 8))],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "huge", "0", "-4", "3x", "3x4x5"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="no frame size"):
        parse_size(text)


def test_squares():
    assert [parse_side(text) for text in (None, "64", "64x64")] == [None, 64, 64]
    for text in ("native", "64x48", "1", "99999"):
        with pytest.raises(InputError, match="squares"):
            parse_side(text)


# ---- images: the numbers in the file, in [0, 1]


def write_tiff(path, pixels, **more):
    """A plain gray TIFF of any kind of number."""
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data, (H, W) = pixels.tobytes(), pixels.shape
    tags = [(256, W), (257, H), (258, 8 * pixels.itemsize), (259, 1), (262, 1), (273, 8), (277, 1), (278, H)]
    tags += [(279, len(data)), (339, kind)]
    nodata = more.get("nodata", "").encode()
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 8 + len(data)) + data)
        file.write(struct.pack("<H", len(tags) + bool(nodata)))
        for tag, value in tags:
            file.write(struct.pack("<HHII", tag, 4, 1, value))
        if nodata:  # GDAL's, as text
            file.write(struct.pack("<HHI", 42113, 2, len(nodata) + 1) + nodata.ljust(4, b"\0"))
        file.write(struct.pack("<I", 0))


RAMP = np.linspace(0, 1, 48).reshape(6, 8)  # (H, W)


def frames_of(folder, declared=UNDECLARED, channels=1):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_clip(folder, declared, channels=channels) as clip:
            return np.stack(list(clip)), clip.notes


@pytest.mark.parametrize(
    ("kind", "peak", "declared"),
    [
        ("<u1", 255, {}), ("<u2", 65535, {}), ("<i4", 255, {}), ("<u4", 255, {}), ("<f4", 1, {}),
        ("<i2", 32767, {"range": (0, 32767)}), ("<u2", 4095, {"range": (0, 4095)}),
        ("<u4", 2**32 - 1, {"range": (0, 2**32 - 1)}), ("<i4", 10**6, {"range": (0, 10**6)}),
        ("<f4", 300, {"range": (0, 300)}),
    ],
)  # fmt: skip
def test_images_of_any_depth_keep_their_range(tmp_path, kind, peak, declared):
    write_tiff(tmp_path / "1.tif", (RAMP * peak).astype(kind))
    frames, notes = frames_of(tmp_path, Declared(**declared))
    np.testing.assert_allclose(frames[0, 0], RAMP, atol=1 / 254)
    assert bool(notes) == (peak == 255 and kind != "<u1")


@pytest.mark.parametrize(("kind", "peak"), [("<i2", 32767), ("<i4", 10**6), ("<u4", 2**32 - 1), ("<f4", 300)])
def test_images_whose_range_nothing_tells_are_refused_for_what_they_are(tmp_path, kind, peak):
    write_tiff(tmp_path / "1.tif", (RAMP * peak).astype(kind))
    with pytest.raises(InputError, match=r"1\.tif.*--range") as caught:
        frames_of(tmp_path)
    assert not re.search(r" -\d", str(caught.value))  # no value of it is negative


def test_signed_values_have_both_signs(tmp_path):
    write_tiff(tmp_path / "1.tif", (RAMP * 200 - 100).astype("<i2"))
    frames, _ = frames_of(tmp_path, Declared(range=(-100, 100)))
    np.testing.assert_allclose(frames[0, 0], RAMP, atol=0.01)


def test_values_that_images_declare_for_none_are_missing(tmp_path):
    pixels = (RAMP * 60000 + 1000).astype(np.uint16)
    pixels[2, 3] = 7
    missing = pixels == 7
    for number, write in enumerate(
        [
            lambda path: Image.fromarray(pixels).save(path.with_suffix(".png"), transparency=7),
            lambda path: write_tiff(path.with_suffix(".tif"), pixels, nodata="7"),
            lambda path: Image.fromarray((pixels // 257).astype(np.uint8)).save(
                path.with_suffix(".png"), transparency=0
            ),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "1")
        (frame,), _ = frames_of(tmp_path / str(number))
        np.testing.assert_array_equal(np.isnan(frame[0]), missing)
        np.testing.assert_allclose(frame[0][~missing], pixels[~missing] / 65535, atol=1 / 255)
    (frame,), _ = frames_of(tmp_path / "0", Declared(missing=float(pixels[0, 0])))
    assert np.argwhere(np.isnan(frame[0])).tolist() == [[0, 0]]  # the user's word goes over the file's


def test_missing_values_stay_so_when_frames_are_resized():
    frames = np.full((1, 1, 8, 8), 0.5, np.float32)
    frames[0, 0, :4, :4] = np.nan
    with open_clip(frames, size=(4, 4)) as clip:
        (frame,) = clip
    np.testing.assert_array_equal(np.isnan(frame[0]), np.kron([[1, 0], [0, 0]], np.ones((2, 2))) == 1)
    assert np.nanmax(frame) <= 0.51


def test_palettes_and_other_colours(tmp_path):
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    for name, image in (("p.png", red.convert("P")), ("c.jpg", red.convert("CMYK")), ("t.tif", red.convert("CMYK"))):
        folder = tmp_path / name[0]
        folder.mkdir()
        image.save(folder / name)
        frames, _ = frames_of(folder, channels=3)
        np.testing.assert_allclose(frames.mean((0, 2, 3)), [1, 0, 0], atol=0.03)
    palette = Image.new("P", (8, 6))
    palette.putpalette([255, 255, 255])
    palette.save(tmp_path / "p" / "p.png", transparency=bytes([51]))
    np.testing.assert_allclose(frames_of(tmp_path / "p")[0], 0.2, atol=0.01)  # over black


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\0\x08\0\0\0\x01\0\x00\x01\x04\0\x01\0\0\0"])
def test_images_that_are_none_are_named_in_words(tmp_path, capfd, content):
    (tmp_path / "1.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"1\.tif") as caught:
        frames_of(tmp_path)
    assert "<_io" not in str(caught.value) and " object at " not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_libraries_have_nothing_to_say(tmp_path, capfd):
    """libtiff speaks from C: here of a tag that is not in its order."""
    image = Image.fromarray((RAMP * 255).astype(np.uint8))
    image.save(tmp_path / "1.tif", compression="tiff_lzw", tiffinfo={33550: "odd"})
    content = (tmp_path / "1.tif").read_bytes()
    (tmp_path / "2.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"2\.tif"):
        frames_of(tmp_path)
    with unheard():
        os.write(2, b"TIFFReadDirectory: Warning")
        warnings.warn("Pillow has something to say", stacklevel=1)
    os.write(2, b"heard")
    assert capfd.readouterr() == ("", "heard")


# ---- folders of images


def folder_of(tmp_path, *names):
    for name in names:
        Image.new("L", (8, 6)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "names",
    [
        ("left_0.png", "left_1.png", "right_0.png", "right_1.png"),
        ("cam1_0.png", "cam1_1.png", "cam2_0.png", "cam2_1.png"),
        ("0.png", "1.png", "0.jpg", "1.jpg"),
    ],
)
def test_several_series_are_no_clip(tmp_path, names):
    with pytest.raises(InputError, match="several series") as caught:
        list_images(folder_of(tmp_path, *names))
    assert names[0] in str(caught.value) and names[2] in str(caught.value)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("0.png", "1.png", "4.png", "5.png"), "2 are missing: 2, 3"),
        (("f0.png", "f5.png", "f10.png", "f20.png"), "1 are missing: 15"),
        (("cover.png", "f1.png", "f2.png"), "cover.png is taken for a frame"),
        (("f1.png", "f2.png", "f10.png", "f11.png", "f9.png"), "6 are missing: 3, 4, 5, 6, 7, ..."),
        (("20240131_23.png", "20240201_00.png", "20240201_23.png"), ""),
        (("a.png", "b.png"), ""), (("2.png", "3.png"), ""), (("7.png",), ""),
    ],
)  # fmt: skip
def test_what_a_series_lacks_is_said(tmp_path, names, note):
    _, notes = frames_of(folder_of(tmp_path, *names))
    assert note in " ".join(notes) and bool(note) == bool(notes)
