"""What a forecast is written as."""

import dataclasses

import numpy as np
import pytest
from commands import DIGITS
from PIL import Image

from vmrnn_cli import render, video, writers
from vmrnn_cli.errors import InputError
from vmrnn_cli.forecast import Forecast, Step

SUFFIXES = [".gif", ".mp4", ".webm", ".png", ".npz", ".html"]


def forecast(known=2, channels=1, **options):
    """Two frames given and three predicted, the first `known` of them with a truth; none brighter than a half."""
    frames = np.random.default_rng(0).random((8, channels, 24, 32), np.float32) / 2
    truth = [*frames[5 : 5 + known], *[None] * (3 - known)]
    return Forecast(frames[:2], 3, tuple(map(Step, frames[2:5], truth)), has_truth=known > 0, **options)


def files(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_predict_writes_every_format(run, tiny, tmp_path, suffix):
    code, out, err = run("predict", DIGITS, "--weights", tiny, "-o", f"out{suffix}")
    assert (code, (tmp_path / f"out{suffix}").stat().st_size > 0) == (0, True), err
    assert "last frame repeated" in out
    assert files(tmp_path) == [f"out{suffix}"]


@pytest.mark.parametrize("name", ["a.gif", "a.MP4", "a.webm", "a.b.png", "a.npz"])
def test_known_suffixes(name):
    assert issubclass(writers.find_writer(name), writers.Writer)


@pytest.mark.parametrize("name", ["a.avi", "a", ".gif", "gif"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=r"\.gif, \.mp4, \.webm, \.png, \.npz"):
        writers.find_writer(name)


@pytest.mark.parametrize("known", [2, 0])
def test_arrays_are_in_the_units_of_the_clip(tmp_path, known):
    record = forecast(known, fps=12.5, divided_by=4.0)
    record.save(tmp_path / "clip.NPZ")
    assert files(tmp_path) == ["clip.NPZ"]
    with np.load(tmp_path / "clip.NPZ", allow_pickle=False) as stored:
        assert sorted(stored.files) == ["context", "fps", "prediction"] + ["truth"] * bool(known)
        np.testing.assert_array_equal(stored["context"], 4 * record.context)
        np.testing.assert_array_equal(stored["prediction"], 4 * record.prediction)
        assert stored["context"].dtype == stored["prediction"].dtype == np.float32
        assert float(stored["fps"]) == 12.5
        if known:
            np.testing.assert_array_equal(stored["truth"], 4 * record.truth)


def test_a_strip_is_what_was_drawn(tmp_path):
    record = forecast(title="some weights", fps=5.0, has_clock=True)
    strip = render.FilmStrip((1, 24, 32), context=2, frames=3, fps=5.0, title="some weights")
    for index, frame in enumerate(record.context):
        strip.context_frame(index, frame)
    for index, step in enumerate(record.steps):
        strip.predicted_frame(index, step.prediction, step.truth)
    record.save(tmp_path / "strip.PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "strip.PNG")), strip.canvas)


@pytest.mark.parametrize(("known", "channels"), [(2, 1), (0, 1), (2, 3), (2, 2)])
def test_a_film_is_what_was_drawn(tmp_path, monkeypatch, known, channels):
    """Gray and colours from 0 to 1, grids up to what was given."""
    canvases = []
    monkeypatch.setattr(video.VideoWriter, "write", lambda self, canvas: canvases.append(canvas))
    monkeypatch.setattr(video.VideoWriter, "finish", lambda self: self._path.touch())
    record = forecast(known, channels)
    record.save(tmp_path / "film.mp4")
    panels = render.WITH_TRUTH if known else render.WITHOUT_TRUTH
    peak = record.context.max() if channels == 2 else 1.0
    shape = (channels, 24, 32)
    comparison = render.Comparison(shape, context=2, frames=3, fps=None, panels=panels, peak=float(peak))
    expected = [comparison.context_frame(index, frame) for index, frame in enumerate(record.context)]
    expected += [comparison.predicted_frame(index, *step) for index, step in enumerate(record.steps)]
    np.testing.assert_array_equal(canvases, expected)


def test_one_in_the_making_is_written_like_one_that_is_finished(tmp_path):
    record, told = forecast(), []
    record.save(tmp_path / "finished.npz")
    making = dataclasses.replace(record, steps=iter(record.steps))
    with pytest.raises(ValueError, match="in the making"):
        _ = making.prediction
    making.save(tmp_path / "made.npz", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    one, other = np.load(tmp_path / "finished.npz"), np.load(tmp_path / "made.npz")
    assert one.files == other.files
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    assert making.timing.write_s > 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    def steps():
        yield forecast().steps[0]
        raise KeyboardInterrupt

    (tmp_path / f"out{suffix}").write_text("old")
    with pytest.raises(InputError, match="--overwrite"):
        forecast().save(tmp_path / f"out{suffix}")
    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(forecast(), steps=steps()).save(tmp_path / f"out{suffix}", overwrite=True)
    assert files(tmp_path) == [f"out{suffix}"]
    assert (tmp_path / f"out{suffix}").read_text() == "old"


def test_panels_that_show_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing is known"):
        forecast(known=0).save(tmp_path / "o.png", panels=["truth", "error"])
    with pytest.raises(InputError, match="no panel 'lies'"):
        forecast().save(tmp_path / "o.png", panels=["lies"])
    assert files(tmp_path) == []


def test_further_pictures_have_panels_and_arrays(tmp_path):
    """Of any size, gray or in colour; a forecast may ask for their panels itself."""
    red = np.zeros((3, 5, 7), np.float32)
    red[0] = 1
    steps = tuple(step._replace(extra={"motion": red}) for step in forecast().steps)
    record = dataclasses.replace(forecast(), steps=steps, panels=("prediction", "motion"))
    record.save(tmp_path / "o.png")
    strip = np.asarray(Image.open(tmp_path / "o.png"))
    assert (strip == (255, 0, 0)).all(-1).sum() == 3 * 120 * 160  # the whole panel, five times the frame
    record.save(tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as stored:
        np.testing.assert_array_equal(stored["motion"], [red] * 3)
    comparison = render.Comparison((1, 24, 32), context=2, frames=3, fps=None, panels=record.panels)
    assert not (comparison.context_frame(0, record.context[0]) == (255, 0, 0)).all(-1).any()
    assert (comparison.predicted_frame(0, *steps[0]) == (255, 0, 0)).all(-1).any()
