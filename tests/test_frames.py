"""The one type of frames, and what turns others into it."""

import numpy as np
import pytest

from vmrnn_cli.errors import InputError
from vmrnn_cli.frames import parse_side, parse_size, to_float, to_uint8
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
