"""What the numbers of an array mean: one reading, or a refusal that names the option; and README tells the same."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from vmrnn_cli.errors import InputError
from vmrnn_cli.readings import (
    TABLE,
    Declared,
    Units,
    arrange,
    fill,
    highest,
    in_unit,
    missing_note,
    one_clip,
    survey,
    table,
    units_of,
)

SIZES = {"N": 5, "T": 20, "C": 3, "H": 12, "W": 10}


def test_readme_shows_the_table():
    readme = Path(__file__).parent.parent / "README.md"
    assert table() in readme.read_text()
    assert len({found for _, found, _ in TABLE}) == len(TABLE)


# ---- axes


def number(shape):
    """An array whose every value is its own number: any mix-up of axes shows."""
    return np.arange(np.prod(shape)).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((30, 12, 10), "THW"),
        ((300, 2, 16, 8), "TCHW"),  # two flows of a narrow city
        ((4392, 4, 16, 8), "TCHW"),
        ((20, 3, 64, 64), "TCHW"),
        ((30, 3, 64, 1024), "TCHW"),  # wide, and yet nothing else
        ((100, 20, 64, 64), "NTHW"),
        ((7, 9, 2, 8, 8), "NTCHW"),
        ((300, 32, 32, 2), "THWC"),
        ((1920, 10, 20, 2), "THWC"),
        ((20, 9, 9, 1), "THWC"),
        ((12, 20, 64, 64, 3), "NTHWC"),
        ((5, 3, 20, 64, 64), "NCTHW"),
        ((5, 1, 10, 64, 64), "NCTHW"),
        ((64, 64, 20), "HWT"),
        ((5, 384, 384, 49), "NHWT"),
        ((20, 8, 64, 64), "TNHW"),
    ],
)
def test_shapes_that_have_one_reading(shape, layout):
    array = number(shape)
    found = arrange("x.npy", array)
    assert found.layout == layout
    assert bool(found.note) == (layout not in ("THW", "TCHW", "NTHW", "NTCHW") or shape[-1] == 1024)
    assert "x.npy" in found.note if found.note else True
    size = dict(zip(layout, shape, strict=True))
    assert found.clips.shape == tuple(size.get(axis, 1) for axis in "NTCHW")
    place = {axis: size[axis] - 1 for axis in layout}  # the last value of each axis, and one in the middle
    place["H"] = size["H"] // 2
    assert found.clips[tuple(place.get(axis, 0) for axis in "NTCHW")] == array[tuple(place[axis] for axis in layout)]


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((48, 50, 44, 8), ("THWC", "NHWT")),
        ((60, 40, 36, 9), ("THWC", "NTHW")),
        ((300, 8, 32, 32), ("TCHW", "NTHW")),
        ((3, 20, 64, 64), ("NTHW", "CTHW")),
        ((20, 40, 64, 64), ("NTHW", "TNHW")),
        ((100, 100, 80), ("THW", "HWT")),
    ],
)
def test_shapes_that_have_several_are_refused_by_them(shape, readings):
    with pytest.raises(InputError) as caught:
        arrange("x.npy", np.zeros(shape, bool))
    line = str(caught.value)
    assert line.startswith(f"x.npy is shaped {shape}: ")
    for layout in readings:
        assert f"({', '.join(layout)})" in line.split("—")[0] and layout in line.split("--layout")[1]
        declared = arrange("x.npy", np.zeros(shape, bool), Declared(layout.lower()))
        assert (declared.layout, declared.note) == (layout, "")


def test_as_many_channels_as_the_weights_take_are_usual():
    array = np.zeros((300, 8, 32, 32), bool)
    assert one_clip("x", array, channels=8).clips.shape == (300, 8, 32, 32)
    assert arrange("x", array, among="N").layout == "NTHW"
    assert arrange("x", array, among="T").layout == "TCHW"


@pytest.mark.parametrize(("order", "layout"), [((0, 1), "TNHW"), ((1, 0), "NTHW")])
def test_time_is_where_frames_change_less(order, layout):
    """(20, 40, 64, 64) may be either; here a square drifts, in forty clips somewhere else each."""
    array = np.zeros((20, 40, 64, 64), np.uint8) if order == (0, 1) else np.zeros((40, 20, 64, 64), np.uint8)
    moving = array if order == (0, 1) else array.swapaxes(0, 1)
    for n, (top, left) in enumerate(np.random.default_rng(0).integers(0, 34, (40, 2))):
        for t in range(20):
            moving[t, n, top : top + 10, left + t : left + t + 10] = 255
    if order == (1, 0):  # the clips are cut so that the shape is that of the published file
        array = np.tile(array[:20], (1, 2, 1, 1))
    assert arrange("mine.npy", array).layout == layout


def test_one_clip_of_several_or_one_picture_is_refused():
    assert one_clip("x", np.zeros((1, 20, 64, 64), bool)).clips.shape == (20, 1, 64, 64)
    with pytest.raises(InputError, match=r"x is shaped .* 100 clips of 20 frames.*one is wanted"):
        one_clip("x", np.zeros((100, 20, 64, 64), bool))
    with pytest.raises(InputError, match="one picture"):
        one_clip("x", np.zeros((64, 64, 3), bool))
    with pytest.raises(InputError, match=r"shaped \(20,\)"):
        one_clip("x", np.zeros(20))
    with pytest.raises(InputError, match="empty"):
        one_clip("x", np.zeros((0, 4, 4)))


@pytest.mark.parametrize(
    "options", [("THX",), ("TH",), ("TTHW",), ("", "1"), ("", "2,1"), ("", "0,inf"), ("", "", "x")]
)
def test_what_says_nothing(options):
    with pytest.raises(InputError):
        Declared.parse(*options)


def test_what_is_said():
    assert Declared.parse("thwc", "-1,1", "-9999") == Declared("THWC", (-1.0, 1.0), -9999.0)
    assert Declared.parse() == Declared()
    assert Declared(missing=3.0).over(Declared("THW", (0, 2), 4.0)) == Declared("THW", (0, 2), 3.0)
    with pytest.raises(InputError, match=r"not \(T, H, W\)"):
        arrange("x", np.zeros((2, 3, 4, 4)), Declared("THW"))


# ---- range


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (np.uint8([0, 51, 255]), {}, [0, 0.2, 1]),
        (np.array([False, True]), {}, [0, 1]),
        (np.float64([0, 0.25, 1.0000001]), {}, [0, 0.25, 1]),  # as rounding leaves it
        (np.float16([0, 0.5, 1]), {}, [0, 0.5, 1]),
        (np.uint16([0, 65535]), {"declared": Declared(range=(0, 65535))}, [0, 1]),
        (np.uint16([0, 4095]), {"declared": Declared(range=(0, 4095))}, [0, 1]),
        (np.int16([-100, 0, 100]), {"declared": Declared(range=(-100, 100))}, [0, 0.5, 1]),
        (np.int32([0, 2**31 - 1]), {"declared": Declared(range=(0, 2**31 - 1))}, [0, 1]),
        (np.float32([-1, 0, 1]), {"declared": Declared(range=(-1, 1))}, [0, 0.5, 1]),
        (np.float32([0, 50, 150]), {"divided_by": 100.0}, [0, 0.5, 1.5]),
        (np.float32([0, 1]), {"divided_by": 100.0}, [0, 0.01]),  # a quiet hour: counts, as all are whole
        (np.int64([0, 50]), {"divided_by": 100.0}, [0, 0.5]),
        (np.float32([0, 0.5]), {"divided_by": 100.0}, [0, 0.5]),
        (np.float32([0, 50]), {"divided_by": None}, [0, 50]),
    ],
    ids=str,
)
def test_values_in_the_unit_range(values, options, expected):
    array = values[:, None, None]  # (T, H, W)
    units = units_of("x", array, **options)
    read = in_unit(array, units, "x")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read[:, 0, 0], expected, atol=2e-7)
    assert read.max() <= 1 or units.open
    assert survey("x", array, units) == 0


def test_what_is_taken_for_granted_of_weights_for_counts_is_said():
    half, whole = np.float32([[[0.5]]]), np.float32([[[1]]])
    assert "--range" in units_of("x.npy", half, divided_by=9.0).note
    assert "--range" in units_of("x.npy", np.uint8([[[7]]]), divided_by=9.0).note
    assert units_of("x.npy", whole, divided_by=9.0).note == ""
    assert units_of("x.npy", half).note == ""


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_without_a_range_are_refused(kind):
    with pytest.raises(InputError, match=rf"x\.tif holds {kind.__name__} values.*--range"):
        units_of("x.tif", np.zeros((2, 4, 4), kind))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.5, np.inf], "infinite"), ([-np.inf, 0.5], "infinite"), ([0, 1.001], "from 0 to 1.001"),
        ([-0.5, 0], r"from -0\.5 to 0.*--range LO,HI.*--missing"),
    ],
)  # fmt: skip
def test_values_out_of_range(values, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for refuse in (lambda a: in_unit(a, Units(), "x.npy"), lambda a: survey("x.npy", a, Units())):
            with pytest.raises(InputError, match=rf"x\.npy holds .*{reason}"):
                refuse(np.float32([values]))


@pytest.mark.parametrize(
    "values", [np.zeros(2, complex), np.array(["a"]), np.zeros(2, "datetime64[s]"), np.zeros(2, object)]
)
def test_what_is_no_number(values):
    with pytest.raises(InputError, match="x holds"):
        units_of("x", values)


# ---- missing values


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        (np.float32([0.5, np.nan, 0.25]), None),
        (np.float32([0.5, -9999, 0.25]), -9999.0),
        (np.float32([0.5, 1e20, 0.25]), 1e20),  # which is another number in float32 than in float64
        (np.float32([0.5, np.inf, 0.25]), np.inf),
        (np.ma.array(np.float32([0.5, 7, 0.25]), mask=[False, True, False]), None),
    ],
)
def test_missing_values_never_become_numbers(values, missing):
    units = units_of("x", values, Declared(missing=missing))
    np.testing.assert_array_equal(in_unit(values, units, "x"), np.float32([0.5, np.nan, 0.25]))
    assert survey("x", values[None], units) == 1
    assert highest(values[None], units) == 0.5


def test_missing_values_of_integers():
    values = np.uint8([0, 255, 51])
    units = units_of("x", values, Declared(missing=255.0))
    np.testing.assert_array_equal(in_unit(values, units, "x"), np.float32([0, np.nan, 0.2]))
    masked = np.ma.array(np.uint8([0, 255]), mask=[True, False])
    np.testing.assert_array_equal(in_unit(masked, units_of("x", masked), "x"), np.float32([np.nan, 1]))


def test_missing_values_are_filled_with_the_last_known_ones():
    nan = np.nan
    frames = np.float32([[nan, 0.1], [0.5, nan], [nan, nan], [0.25, 0.75]])
    filled = np.float32([[0, 0.1], [0.5, 0.1], [0.5, 0.1], [0.25, 0.75]])
    np.testing.assert_array_equal(fill(frames), filled)
    np.testing.assert_array_equal(fill(frames[:1], np.float32([0.3, 0.4])), np.float32([[0.3, 0.1]]))
    assert fill(filled) is filled
    assert (
        missing_note("x", 3, 12)
        == "x: 3 values (25.0%) are missing: filled with the last known ones, left out of scores"
    )
