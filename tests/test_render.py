import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from vmrnn_cli import render
from vmrnn_cli.render import PANELS, WITH_TRUTH, WITHOUT_TRUTH, Comparison, FilmStrip

BLUE, AMBER = render._CONTEXT, render._PREDICTED
SHAPES = [
    *[(1, 64, 64), (1, 28, 28), (3, 48, 64), (1, 128, 128), (3, 90, 160), (3, 160, 90), (1, 720, 1280)],
    *[(2, 16, 8), (2, 8, 16), (4, 16, 16), (12, 5, 7), (1, 4, 200), (1, 200, 4), (9, 4, 200), (3, 1, 1), (2, 1, 5000)],
]


def frame(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def comparison(shape, context=4, frames=6, fps=25, **options):
    return Comparison(shape, context=context, frames=frames, fps=fps, **options)


def enlarged(picture, factor):
    """(H, W) or (H, W, 3) in [0, 1] or uint8 -> (H * factor, W * factor, 3) uint8."""
    if picture.dtype != np.uint8:
        picture = np.rint(picture * 255).astype(np.uint8)
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def places(canvas, picture):
    """(left, top) wherever the picture stands in the canvas, pixel for pixel."""
    height, width, _ = picture.shape
    rows, columns = canvas.shape[0] - height + 1, canvas.shape[1] - width + 1
    first = (canvas[:rows, :columns] == picture[0, 0]).all(axis=2)
    last = (canvas[height - 1 :, width - 1 :] == picture[-1, -1]).all(axis=2)
    corners = np.argwhere(first & last)
    return [(x, y) for y, x in corners if (canvas[y : y + height, x : x + width] == picture).all()]


def count(canvas, colour):
    return int((canvas == colour).all(axis=2).sum())


@pytest.mark.parametrize("panels", [WITH_TRUTH, WITHOUT_TRUTH, ("prediction",), PANELS], ids="-".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_canvas_of_a_clip_has_one_even_size(shape, panels):
    drawn = comparison(shape, panels=panels)
    first, second = frame(shape, 1), frame(shape, 2)
    canvases = [
        drawn.context_frame(0, first),
        drawn.context_frame(3, first),
        drawn.predicted_frame(0, first, second),
        drawn.predicted_frame(5, first, None),
    ]
    assert {canvas.shape for canvas in canvases} == {canvases[0].shape}
    assert {canvas.dtype for canvas in canvases} == {np.dtype(np.uint8)}
    height, width, channels = canvases[0].shape
    assert height % 2 == 0 and width % 2 == 0 and channels == 3
    assert 280 <= width <= 1920


def test_panels_show_the_source_pixel_for_pixel():
    drawn = comparison((1, 64, 64))
    given, prediction, truth = (frame((1, 64, 64), seed) for seed in range(3))
    canvas = drawn.context_frame(3, given)
    [(left, top)] = places(canvas, enlarged(given[0], 4))  # once: the prediction panel shows it dimmed
    canvas = drawn.predicted_frame(0, prediction, truth)
    assert places(canvas, enlarged(truth[0], 4)) == [(left, top)]
    [(prediction_left, prediction_top)] = places(canvas, enlarged(prediction[0], 4))
    assert prediction_top == top
    assert prediction_left >= left + 256


def test_rgb_keeps_its_colours():
    shown = frame((3, 32, 32))
    canvas = comparison((3, 32, 32)).predicted_frame(0, shown, frame((3, 32, 32), 1))
    assert len(places(canvas, enlarged(shown.transpose(1, 2, 0), 8))) == 1


def test_footage_is_scaled_smoothly():
    shown = np.rint(frame((1, 128, 160)) * 255).astype(np.uint8)
    expected = Image.fromarray(shown[0]).resize((320, 256), Image.Resampling.LANCZOS).convert("RGB")
    canvas = comparison((1, 128, 160)).context_frame(0, (shown / 255).astype(np.float32))
    assert len(places(canvas, np.asarray(expected))) == 1


@pytest.mark.parametrize("channels", [2, 4, 12])
def test_gridded_data_has_a_tile_per_channel(channels):
    shape = (channels, 16, 16)
    drawn = comparison(shape)
    prediction, truth = frame(shape, 1), frame(shape, 2)
    canvas = drawn.predicted_frame(0, prediction, truth)
    factor = (drawn._painter._tile_size[0]) // 16
    for channel in range(channels):
        levels = np.rint(prediction[channel] * 255).astype(int)
        found = places(canvas, enlarged(render.VALUE_COLOURS[levels], factor))
        assert len(found) == (channel < 9), f"channel {channel}"


@pytest.mark.parametrize("table", [render.VALUE_COLOURS, render.ERROR_COLOURS], ids=["values", "error"])
def test_colour_maps_grow_brighter_all_the_way(table):
    linear = (table / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert table.shape == (256, 3)
    assert (np.diff(luminance) > -1e-3).all()  # a step of an 8-bit channel may dip a little
    assert (np.diff(luminance[::8]) > 0).all()
    assert luminance[-1] > 0.6 > 0.02 > luminance[0]


@pytest.mark.parametrize(("error", "level"), [(0.0, 0), (0.1, 51), (0.25, 128), (0.5, 255), (0.9, 255)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_error_is_the_absolute_difference_on_a_fixed_scale(channels, error, level):
    shape = (channels, 16, 16)
    low, high = np.full(shape, 0.05, np.float32), np.full(shape, 0.05 + error, np.float32)
    for prediction, truth in [(low, high), (high, low)]:
        canvas = comparison(shape, panels=("error",)).predicted_frame(0, prediction, truth)
        distance = np.abs(render.ERROR_COLOURS[level].astype(int) - canvas[canvas.shape[0] // 2, canvas.shape[1] // 3])
        assert distance.max() <= 3  # a level either way: 0.25 / 0.5 is no whole level


def test_error_of_rgb_is_the_mean_over_the_channels():
    black, red = np.zeros((3, 16, 16), np.float32), np.zeros((3, 16, 16), np.float32)
    red[0] = 0.3
    canvas = comparison((3, 16, 16), panels=("error",)).predicted_frame(0, black, red)
    assert (canvas[canvas.shape[0] // 2, canvas.shape[1] // 2] == render.ERROR_COLOURS[51]).all()  # 0.1 of 0.5


@pytest.mark.parametrize("channels", [1, 2])
def test_peak_is_the_bright_end(channels):
    shown = np.full((channels, 16, 16), 0.2, np.float32)
    drawn = comparison((channels, 16, 16), panels=("truth",), peak=0.2)
    brightest = (255, 255, 255) if channels == 1 else render.VALUE_COLOURS[-1]
    assert count(drawn.context_frame(0, shown), brightest) >= channels * 64 * 64


def test_values_outside_the_range_are_cut_off():
    canvas = comparison((1, 16, 16), panels=("prediction",)).predicted_frame(0, np.full((1, 16, 16), 1.2), None)
    assert count(canvas, (255, 255, 255)) == 256 * 256
    canvas = comparison((1, 16, 16), panels=("prediction",)).predicted_frame(0, np.full((1, 16, 16), -0.2), None)
    assert count(canvas, (0, 0, 0)) == 256 * 256


def test_colours_tell_context_from_prediction():
    shown = frame((1, 64, 64))
    drawn = comparison((1, 64, 64))
    header = slice(0, 46)
    given, predicted = drawn.context_frame(3, shown)[header], drawn.predicted_frame(0, shown, shown)[header]
    assert count(given, BLUE) > 0 and count(given, AMBER) == 0
    assert count(predicted, AMBER) > 0 and count(predicted, BLUE) == 0


def test_every_position_has_its_own_label():
    shown = frame((1, 64, 64))
    drawn = comparison((1, 64, 64))
    headers = [drawn.context_frame(i, shown)[:46].tobytes() for i in range(4)]
    headers += [drawn.predicted_frame(k, shown, shown)[:46].tobytes() for k in range(6)]
    assert len(set(headers)) == 10


def test_labels_count_from_one_and_give_seconds():
    clip = render._Picture((1, 8, 8), 10, 20, 25, WITH_TRUTH)
    assert clip.context_label(2) == "context 3/10"
    assert clip.predicted_label(4) == "predicted +5 · 0.20 s"
    assert render._Picture((1, 8, 8), 10, 20, 240, WITH_TRUTH).predicted_label(0) == "predicted +1 · 0.0042 s"
    timeless = render._Picture((1, 8, 8), 10, 20, None, WITH_TRUTH)
    assert (timeless.predicted_label(4), timeless.horizon) == ("predicted +5", "predicted · 20 frames")


def test_bar_fills_and_changes_colour_at_the_boundary():
    shown = frame((1, 64, 64))
    drawn = comparison((1, 64, 64))
    bars = [drawn.context_frame(i, shown)[-34:] for i in range(4)]
    bars += [drawn.predicted_frame(k, shown, shown)[-34:] for k in range(6)]
    blue, amber = [count(bar, BLUE) for bar in bars], [count(bar, AMBER) for bar in bars]
    assert blue[0] > 0 and (np.diff(blue)[:3] > 0).all() and (np.diff(blue)[3:] == 0).all()
    assert amber[3] == 0 and (np.diff(amber)[3:] > 0).all()
    assert amber[-1] / blue[-1] == pytest.approx(6 / 4, rel=0.05)


def test_unknown_truth_leaves_its_panels_empty():
    drawn = comparison((1, 64, 64))
    prediction, truth = frame((1, 64, 64), 1), frame((1, 64, 64), 2)
    known, unknown = drawn.predicted_frame(0, prediction, truth), drawn.predicted_frame(0, prediction, None)
    [(truth_left, top)] = places(known, enlarged(truth[0], 4))
    [(prediction_left, _)] = places(unknown, enlarged(prediction[0], 4))
    empty = count(unknown[top : top + 256, truth_left : truth_left + 256], render._EMPTY)
    assert 0.98 * 256 * 256 < empty < 256 * 256  # all but the words "not known"
    right = prediction_left + 256
    assert count(unknown[top : top + 256, right:], render._EMPTY) == empty


def test_without_truth_the_last_given_frame_stays_beside_the_prediction():
    drawn = comparison((1, 64, 64), panels=WITHOUT_TRUTH)
    for i in range(4):
        drawn.context_frame(i, frame((1, 64, 64), i))
    prediction = frame((1, 64, 64), 9)
    canvas = drawn.predicted_frame(5, prediction, None)
    [(left, _)] = places(canvas, enlarged(frame((1, 64, 64), 3)[0], 4))
    [(prediction_left, _)] = places(canvas, enlarged(prediction[0], 4))
    assert left < prediction_left


def test_prediction_alone_shows_the_context_undimmed():
    shown = frame((1, 64, 64))
    canvas = comparison((1, 64, 64), panels=("prediction",)).context_frame(0, shown)
    assert len(places(canvas, enlarged(shown[0], 4))) == 1


def test_very_wide_frames_are_stacked():
    prediction, truth = frame((1, 4, 200), 1), frame((1, 4, 200), 2)
    canvas = comparison((1, 4, 200)).predicted_frame(0, prediction, truth)
    [(truth_left, truth_top)] = places(canvas, enlarged(truth[0], 9))
    [(left, top)] = places(canvas, enlarged(prediction[0], 9))
    assert left == truth_left and top > truth_top


@pytest.mark.parametrize("title", ["clip.mp4", "Zoë", "夏天.mp4", "two\nlines", "nul\0", "x" * 500], ids=ascii)
def test_any_title_fits(title):
    shown = frame((1, 64, 64))
    plain, titled = (comparison((1, 64, 64), title=t).context_frame(0, shown) for t in ("", title))
    assert plain.shape == titled.shape
    label_right = 20 + 110
    assert (plain[:, :label_right] == titled[:, :label_right]).all()
    assert (plain[:46] != titled[:46]).any()
    assert (plain[46:] == titled[46:]).all()
    assert (titled[:, -20:] == plain[:, -20:]).all()  # the margin stays free


def test_canvases_are_reproducible_and_independent():
    shown = frame((3, 90, 160))
    drawn = comparison((3, 90, 160), title="clip")
    first = drawn.predicted_frame(2, shown, shown)
    copy = first.copy()
    first[:] = 0
    assert (drawn.predicted_frame(2, shown, shown) == copy).all()
    assert (comparison((3, 90, 160), title="clip").predicted_frame(2, shown, shown) == copy).all()


@pytest.mark.parametrize("kind", [Comparison, FilmStrip])
def test_no_frame_is_kept(kind):
    drawn = kind((1, 64, 64), context=1, frames=1, fps=10)
    frames = [frame((1, 64, 64), seed) for seed in range(3)]
    alive = [weakref.ref(f) for f in frames]
    drawn.context_frame(0, frames[0])
    drawn.predicted_frame(0, frames[1], frames[2])
    frames.clear()
    assert [ref() for ref in alive] == [None, None, None]


@pytest.mark.parametrize("kind", [Comparison, FilmStrip])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context": 0}, "at least 1"),
        ({"frames": 0}, "at least 1"),
        ({"fps": 0.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"panels": ()}, "panels"),
        ({"panels": ("truth", "truth")}, "panels"),
        ({"panels": ("truth", "flow")}, "flow"),
        ({"peak": 0.0}, "peak"),
    ],
)
def test_wrong_arguments_are_refused(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind((1, 8, 8), **{"context": 2, "frames": 2, "fps": 10.0, **wrong})


@pytest.mark.parametrize("kind", [Comparison, FilmStrip])
def test_frames_outside_the_clip_are_refused(kind):
    drawn = kind((1, 8, 8), context=2, frames=2, fps=10)
    good, nan = frame((1, 8, 8)), np.full((1, 8, 8), np.nan, np.float32)
    for call, message in [
        (lambda: drawn.context_frame(2, good), "frame 2 of 2"),
        (lambda: drawn.predicted_frame(-1, good, good), "frame -1 of 2"),
        (lambda: drawn.context_frame(0, good[0]), "shape"),
        (lambda: drawn.predicted_frame(0, good, frame((1, 8, 9))), "shape"),
        (lambda: drawn.predicted_frame(0, nan, good), "NaN"),
        (lambda: drawn.predicted_frame(0, good, nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("panels", [WITH_TRUTH, WITHOUT_TRUTH, ("error",), ("context",)], ids="-".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_film_strip_draws_every_shape(shape, panels):
    strip = FilmStrip(shape, context=4, frames=6, fps=25, panels=panels)
    blank = strip.canvas
    for i in range(4):
        strip.context_frame(i, frame(shape, 1))
    for k in range(6):
        strip.predicted_frame(k, frame(shape, 2), frame(shape, 3))
    assert strip.canvas.shape == blank.shape
    height, width, _ = blank.shape
    assert height % 2 == 0 and width % 2 == 0 and width <= 1840
    assert (strip.canvas != blank).any()
    assert (strip.canvas[:92] == blank[:92]).all()  # pictures stay below the names


@pytest.mark.parametrize(("context", "frames"), [(1, 1), (10, 10), (4, 4), (10, 40), (200, 400), (1, 1000), (1000, 1)])
@pytest.mark.parametrize("most", [3, 9, 12])
def test_film_strip_columns(context, frames, most):
    columns = render.strip_columns(context, frames, most)
    given = [c for c in columns if c < context]
    predicted = [c for c in columns if c >= context]
    assert len(columns) <= most
    assert given[-1] == context - 1 and predicted[-1] == context + frames - 1
    assert columns == sorted(set(columns)) and columns[0] >= 0
    for part in (given, predicted):
        assert len(set(np.diff(part))) <= 1  # even steps
    assert len(predicted) > min(frames, most) / 3


def test_film_strip_puts_each_frame_into_its_column():
    shape = (1, 64, 64)
    strip = FilmStrip(shape, context=10, frames=10, fps=25)
    assert strip.columns == [4, 9, *range(10, 20)]
    for i in range(10):
        strip.context_frame(i, frame(shape, i))
    for k in range(10):
        strip.predicted_frame(k, frame(shape, 50 + k), frame(shape, 10 + k) if k < 5 else None)
    canvas = strip.canvas
    tops, lefts = set(), []
    for position in strip.columns[:7]:
        [(left, top)] = places(canvas, enlarged(frame(shape, position)[0], 2))
        lefts.append(left)
        tops.add(top)
    assert len(tops) == 1 and lefts == sorted(lefts)
    assert places(canvas, enlarged(frame(shape, 3)[0], 2)) == []  # not one of the columns
    for k in range(10):
        [(left, top)] = places(canvas, enlarged(frame(shape, 50 + k)[0], 2))
        assert top > max(tops)
        if k < 5:
            assert left == lefts[2 + k]
    right_of_known = canvas[min(tops) : min(tops) + 128, lefts[-1] + 130 :]
    written = right_of_known[52:76]  # "not known", in the middle of each cell
    assert render._MUTED in set(map(tuple, written.reshape(-1, 3)))
    written[:] = render._EMPTY
    assert set(map(tuple, right_of_known.reshape(-1, 3))) == {render._EMPTY, render._OUTLINE, render._BACKGROUND}


def test_drawing_needs_neither_torch_nor_a_plotting_library():
    code = "import sys, vmrnn_cli.render; print([m for m in ('torch', 'matplotlib', 'skimage') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_bar_of_a_long_clip_is_drawn_at_once():
    begin = time.monotonic()
    canvas = Comparison((1, 64, 64), context=10, frames=2**31 - 1, fps=10).context_frame(0, np.zeros((1, 64, 64)))
    assert canvas.std() > 0
    assert time.monotonic() - begin < 10
