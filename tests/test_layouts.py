"""How films show their panels, and the stills that stand for them."""

from __future__ import annotations

import numpy as np
import pytest
from commands import DIGITS, one_error_line
from PIL import Image
from test_render import enlarged, frame, places
from test_writers import files, forecast

from vmrnn_cli import render, video
from vmrnn_cli.errors import InputError

SHAPE = (1, 64, 64)
PANELS = ("truth", "prediction", "error", "context")


def corners(layout, panels=PANELS):
    """Where truth, prediction and last given frame stand."""
    drawn = render.film(SHAPE, layout=layout, context=1, frames=2, fps=None, panels=panels)
    given, prediction, truth = (frame(SHAPE, seed) for seed in range(3))
    drawn.context_frame(0, given)
    canvas = drawn.predicted_frame(0, prediction, truth)
    return [places(canvas, enlarged(shown[0], 4)) for shown in (truth, prediction, given)], canvas


def test_a_row_a_column_and_a_grid():
    (row, column, grid), canvases = zip(*(corners(layout) for layout in ("row", "column", "grid")), strict=True)
    (truth,), (prediction,), (last,) = row
    assert truth[1] == prediction[1] == last[1]
    assert truth[0] < prediction[0] < last[0]
    (truth,), (prediction,), (last,) = column
    assert truth[0] == prediction[0] == last[0]
    assert truth[1] + 256 < prediction[1] < last[1] - 256
    (truth,), (prediction,), (last,) = grid
    assert truth[1] == prediction[1]
    assert (prediction[0], truth[1] + 256 < last[1]) == (last[0], True)
    assert canvases[0].shape[1] > 2 * canvases[1].shape[1] - 100


def test_without_a_layout_a_film_is_as_before():
    """A row, and a column of very wide frames."""
    np.testing.assert_array_equal(corners(None)[1], corners("row")[1])
    look = {"context": 1, "frames": 1, "fps": None, "panels": PANELS}
    wide = [render.film((1, 8, 64), layout=layout, **look)._template.size for layout in (None, "column", "row")]
    assert wide[0] == wide[1] != wide[2]


@pytest.mark.parametrize("layout", render.LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 90, 160), (3, 160, 90), (1, 720, 1280), (2, 16, 8)], ids=str)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_layout_has_one_even_size_that_screens_have_room_for(layout, shape, count):
    drawn = render.film(shape, layout=layout, context=2, frames=3, fps=25.0, panels=PANELS[:count])
    canvases = [drawn.context_frame(0, frame(shape)), drawn.context_frame(1, frame(shape))]
    canvases += [
        drawn.predicted_frame(0, frame(shape, 1), frame(shape, 2)),
        drawn.predicted_frame(2, frame(shape), None),
    ]
    height, width, _ = canvases[0].shape
    assert {canvas.shape for canvas in canvases} == {(height, width, 3)}
    assert height % 2 == width % 2 == 0
    assert width <= 1920
    assert height <= 1080 + 400
    room = render.panel_size(shape, count, layout)
    assert room[0] <= shape[1]
    assert room[1] <= shape[2]


def test_a_swipe_is_one_picture_of_two():
    drawn = render.film(SHAPE, layout="swipe", context=1, frames=40, fps=None, panels=("truth", "prediction", "error"))
    white, black = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    drawn.context_frame(0, black)
    (left, top), side = drawn._boxes[0], 256
    lefts = []
    for index in range(40):
        line = drawn.predicted_frame(index, black, white)[top + side // 2, left : left + side, 0]
        lefts.append(int((line == 255).sum()))
        assert (np.diff((line > 128).astype(int)) == 1).sum() == 0  # white on the left alone
    assert abs(lefts[0] - side // 2) < 12  # from the middle
    assert min(lefts) < 0.12 * side
    assert max(lefts) > 0.88 * side
    unknown = drawn.predicted_frame(3, black, None)[top : top + side, left : left + side]
    assert (unknown == 0).all()


def test_a_film_is_written_in_its_layout_with_a_poster(tmp_path, monkeypatch):
    canvases = []
    monkeypatch.setattr(video.VideoWriter, "write", lambda self, canvas: canvases.append(canvas))
    monkeypatch.setattr(video.VideoWriter, "finish", lambda self: self._path.touch())
    forecast(3).save(tmp_path / "film.mp4", layout="column", poster=tmp_path / "still.png")
    assert canvases[0].shape[0] > canvases[0].shape[1]
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "still.png")), canvases[3]
    )  # 2 given, then the middle
    assert files(tmp_path) == ["film.mp4", "still.png"]


def test_what_fails_leaves_no_poster(tmp_path):
    (tmp_path / "still.png").write_text("old")
    with pytest.raises(InputError, match="--overwrite"):
        forecast().save(tmp_path / "film.gif", poster=tmp_path / "still.png")
    assert files(tmp_path) == ["still.png"]
    assert (tmp_path / "still.png").read_text() == "old"


@pytest.mark.parametrize(
    ("layout", "panels", "name"),
    [("circle", None, "o.gif"), ("swipe", ["truth"], "o.gif"), ("grid", None, "o.png"), ("row", None, "o.html")],
)
def test_what_has_no_layout_is_refused(tmp_path, layout, panels, name):
    with pytest.raises(InputError):
        forecast().save(tmp_path / name, layout=layout, panels=panels)
    assert files(tmp_path) == []


@pytest.mark.parametrize("layout", render.LAYOUTS)
def test_predict_takes_a_layout_and_writes_a_poster(run, tiny, tmp_path, layout):
    code, _, err = run("predict", DIGITS, "--weights", tiny, "-o", "o.gif", "--layout", layout, "--poster")
    assert code == 0, err
    assert files(tmp_path) == ["o.gif", "o.png"]
    with Image.open(tmp_path / "o.gif") as film, Image.open(tmp_path / "o.png") as still:
        assert film.size == still.size


@pytest.mark.parametrize(
    "bad", [["--layout", "circle"], ["--poster", "-o", "o.npz"], ["--layout", "row", "-o", "o.png"]]
)
def test_what_predict_cannot_lay_out_is_refused_at_once(run, tmp_path, bad):
    code, _, err = run("predict", DIGITS, "--weights", "none", *bad)
    assert code == 2
    one_error_line(err)
    (tmp_path / "o.png").write_text("old")
    code, _, err = run("predict", DIGITS, "--weights", "none", "-o", "o.gif", "--poster")
    assert (code, "o.png already exists" in err) == (2, True)
