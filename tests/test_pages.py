"""Pages: what is in them, and that they work in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from browser import needs_browser
from commands import CLIP
from PIL import Image

from vmrnn_cli import pages, render
from vmrnn_cli.forecast import Forecast, Step
from vmrnn_cli.pages import charts, media
from vmrnn_cli.rivals import motion_continued

NAMES = ["<img src=x>.mp4", "a\"b'.mp4", "</script><script>alert(1)</script>.mp4", "{{ 7 * 7 }}&amp;.mp4"]


def forecast(known=4, channels=3, size=(80, 96), **options):
    """Three frames given and four predicted, the first `known` of them with a truth."""
    blocks = np.random.default_rng(0).random((11, channels, size[0] // 8, size[1] // 8), np.float32)
    frames = blocks.repeat(8, axis=2).repeat(8, axis=3)
    truth = [*frames[7 : 7 + known], *[None] * (4 - known)]
    steps = tuple(map(Step, frames[3:7], truth))
    return Forecast(frames[:3], 4, steps, has_truth=known > 0, **{"fps": 8.0, "has_clock": True, **options})


def written(tmp_path, record, name="page.html"):
    record.save(tmp_path / name)
    return tmp_path / name


def data(page, name="clips"):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)[1])


def picture(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/webp;base64,")))))


# ---- what is in them


@pytest.mark.parametrize("size", [(80, 96), (24, 32)])
def test_a_page_holds_the_frames(tmp_path, size):
    record = forecast(size=size, source="clips/street.mp4", title="some weights")
    clip = data(written(tmp_path, record).read_text())["clips"][0]
    kept = {"given": record.context, "truth": record.truth, "prediction": record.prediction}
    kept["motion"] = np.stack(list(motion_continued(record.context[None], 4)))[:, 0]
    shown = {"given": clip["given"], "truth": clip["truth"]}
    shown |= {"prediction": clip["tracks"][0]["frames"], "motion": clip["tracks"][2]["frames"]}
    for name, frames in kept.items():
        pictures = np.stack([picture(address) for address in shown[name]])
        expected = np.rint(frames.clip(0, 1).transpose(0, 2, 3, 1) * 255)
        most = 0 if size == (24, 32) else 12  # edges between saturated colours lose most
        assert np.abs(pictures - expected).mean() <= most, name
    assert clip["tracks"][1]["frames"] == []  # the last given one, which is there
    assert (clip["name"], clip["ahead"], clip["fps"]) == ("street.mp4", 4, 8.0)


def test_errors_are_those_of_the_frames(tmp_path):
    record = forecast()
    tracks = data(written(tmp_path, record).read_text())["clips"][0]["tracks"]
    assert [track["label"] for track in tracks] == ["Forecast", "Last frame repeated", "Motion continued"]
    ours = 100 * np.sqrt(np.square(record.prediction - record.truth).mean((1, 2, 3)))
    last = 100 * np.sqrt(np.square(record.context[-1:] - record.truth).mean((1, 2, 3)))
    np.testing.assert_allclose(tracks[0]["errors"], ours, atol=1e-3)
    np.testing.assert_allclose(tracks[1]["errors"], last, atol=1e-3)


def test_grids_are_tiled_levels(tmp_path):
    record = forecast(channels=2, size=(16, 8))
    clip = data(written(tmp_path, record).read_text())["clips"][0]
    peak = float(record.context.max())
    levels = np.rint(record.prediction[0] / peak * 255).clip(0, 255)
    plane = picture(clip["tracks"][0]["frames"][0])
    np.testing.assert_array_equal(plane[..., 0], np.concatenate(list(levels), axis=1))
    assert clip["look"] == {
        "width": 16, "height": 16, "hard": True, "gridded": True, "peak": peak, "errorPeak": peak * render.ERROR_SHARE
    }  # fmt: skip


def test_a_large_frame_can_be_scaled_down():
    film = media.Film((1, 240, 120), most=60)
    assert film.size == (60, 120)
    assert picture(film.encode(np.full((1, 240, 120), 0.5, np.float32))).shape == (120, 60, 3)


def test_what_is_missing_of_the_truth_has_no_error():
    truth = np.array([[[0.5, np.nan]]], np.float32)
    assert media.error(np.zeros((1, 1, 2), np.float32), truth, peak=2.0) == 25.0
    assert media.error(np.zeros((1, 1, 2), np.float32), truth * np.nan) is None


def test_without_a_truth_there_is_none(tmp_path):
    page = written(tmp_path, forecast(known=0)).read_text()
    assert data(page)["clips"][0]["truth"] == []
    assert "nobody knows the truth" in page
    assert "<svg" not in page


@pytest.mark.parametrize("name", NAMES)
def test_names_are_escaped(tmp_path, name):
    page = written(tmp_path, forecast(source=name, title=name)).read_text()
    assert name not in page
    last = name.rpartition("/")[2]
    assert data(page)["clips"][0]["name"] == last
    assert page.count("<script") == 2


def test_only_what_is_ours_may_run(tmp_path):
    page = written(tmp_path, forecast()).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    rest = re.sub(r"<(style|script)[ >].*?</\1>", "", page, flags=re.S)
    assert not re.search(r"\sstyle=|\son\w+=|https?:|src=", rest)


def test_templates_ask_for_all_that_they_show():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        pages.fill("forecast.html", {})


def test_nothing_of_pages_is_imported_for_a_film(tmp_path):
    code = "import sys, numpy as np; sys.modules['vmrnn_cli.pages'] = None; from vmrnn_cli.forecast import *\n"
    code += "z = np.zeros((2, 1, 8, 8), np.float32); f = Forecast(z, 1, (Step(z[0], z[1]),), True)\n"
    code += "f.save('o.png'); import vmrnn_cli.commands.eval, vmrnn_cli.commands.predict, vmrnn_cli.batch"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# ---- charts


def test_a_line_is_where_its_values_are():
    chart = charts.lines([charts.Series("a", [0, 5, 10], [0.0, None, 10.0], "ours")], "x", "y", zero=True)
    (line,) = chart.lines
    assert line.dots[0] == (chart.left, chart.bottom)
    assert line.dots[1][0] == chart.right
    assert len(line.dots) == 2
    places = {tick.label: tick.place for tick in chart.y_ticks}
    assert places["10"] == line.dots[1][1]
    assert chart.described == "y by x. a: from 0 to 10"


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    chart = charts.lines([charts.Series("a", [1, 2, 3, 4], [1, 10, 100, 0], "ours")], "x", "y", log=True)
    heights = [y for _, y in chart.lines[0].dots]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert len(heights) == 3  # 0 has no place


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [None, None], [0.0, 0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_flat_and_empty_lines_have_a_chart(values, log):
    chart = charts.lines([charts.Series("a", range(len(values)), values, "ours")], "x", "y", log=log)
    assert chart.y_ticks
    assert all(chart.top <= y <= chart.bottom for _, y in chart.lines[0].dots)


def test_a_point_on_the_diagonal_is_drawn_there():
    chart = charts.scatter([charts.Point(2, 2, "", 0), charts.Point(8, 2, "", 1), charts.Point(0, 8, "", 2)], "x", "y")
    even, below, edge = chart.dots
    across = (even.x - chart.left) / (chart.right - chart.left)
    assert (chart.bottom - even.y) / (chart.bottom - chart.top) == pytest.approx(across, abs=0.01)
    assert below.x > even.x
    assert below.y == even.y
    assert edge.x == chart.left


def test_many_points_are_thinned_to_their_means():
    x, y = charts.thinned(range(1000), [1.0, 3.0] * 500, most=100)
    assert len(x) == len(y) == 100
    assert set(y) == {2.0}
    assert x[-1] == 999


# ---- in a browser


@pytest.fixture
def player(browser, tmp_path):
    """A page that is open, and its player ready."""
    browser.open(written(tmp_path, forecast(source="a.mp4")))
    browser.until("players[0].at === 0")
    return browser


def at(browser):
    return browser.value("players[0].at")


@needs_browser
@pytest.mark.parametrize("name", NAMES[:2])
def test_a_page_opens_silently_and_asks_for_nothing(browser, tmp_path, name):
    path = written(tmp_path, forecast(source=name))
    browser.open(path)
    browser.until("players[0].at === 0")
    assert browser.value("document.querySelector('h1').textContent") == name
    assert browser.value("document.querySelectorAll('main img').length") == 0
    assert browser.messages == []
    assert browser.requests == [path.resolve().as_uri()]


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_fits_the_screen(browser, tmp_path, width):
    browser.open(written(tmp_path, forecast(source="a" * 300 + ".mp4")), width)
    browser.until("players[0].at === 0")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('.views canvas').length") == 4


@needs_browser
def test_players_show_the_frames_in_step(player):
    """Of the drawn canvases the mean brightness is that of the frames."""
    record = forecast()
    player.value("players[0].seek(5)")
    assert player.value("document.querySelector('.where').textContent") == "+3 · 0.38 s ahead"
    means = player.value("""players[0].boxes.map(({canvas}) => {
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.reduce((sum, value, index) => sum + (index % 4 < 3 ? value : 0), 0) / (data.length / 4 * 3); })""")
    motion = list(motion_continued(record.context[None], 4))[2][0]
    for mean, frame in zip(means, (record.truth[2], record.prediction[2], record.context[-1], motion), strict=True):
        assert mean == pytest.approx(255 * frame.mean(), abs=2)
    assert player.value("[...document.querySelectorAll('.badge')].map(b => b.textContent)")[0] == "+3"
    labels = player.value("players[0].boxes.map(b => b.canvas.getAttribute('aria-label'))")
    assert labels[1] == "Forecast, +3 · 0.38 s ahead"


@needs_browser
def test_keys_play_and_step(player):
    player.press("ArrowRight")
    player.press("ArrowRight")
    assert at(player) == 2
    player.press("ArrowLeft")
    assert at(player) == 1
    player.press("End")
    assert at(player) == 6
    player.press("Home")
    assert at(player) == 0
    player.press(" ")
    assert player.value("players[0].playing")
    player.until("players[0].at > 1")
    player.press(" ")
    assert not player.value("players[0].playing")
    assert player.value("document.querySelector('.play').getAttribute('aria-label')") == "Play"


@needs_browser
def test_the_slider_the_gauge_and_the_button_move_time(player):
    player.value("(s => { s.value = 4; s.dispatchEvent(new Event('input')); })(document.querySelector('.position'))")
    assert at(player) == 4
    assert player.value("document.querySelectorAll('.gauge .done').length") == 5
    assert player.value("document.querySelectorAll('.gauge .predicted').length") == 4
    player.click(".play")
    assert player.value("players[0].playing")
    player.click(".play")
    assert not player.value("players[0].playing")


@needs_browser
def test_dragging_a_picture_moves_time_and_a_tap_plays(player):
    x, y = player.place(".views canvas")
    player.drag((x - 100, y), (x + 100, y))
    assert at(player) > 0
    assert not player.value("players[0].playing")
    player.click(".views canvas")
    assert player.value("players[0].playing")
    player.click(".views canvas")


@needs_browser
def test_a_finger_moves_time_too(browser, tmp_path):
    browser.open(written(tmp_path, forecast()), 390)
    browser.until("players[0].at === 0")
    x, y = browser.place(".views canvas")
    browser.touch((x - 100, y), (x + 100, y))
    browser.until("players[0].at > 0")


@needs_browser
def test_the_cursor_is_on_the_curves_and_a_click_there_seeks(player):
    player.value("players[0].seek(5)")
    dots = player.value("[...document.querySelectorAll('#error .dot')].map(d => d.getAttribute('visibility'))")
    assert dots == ["visible"] * 3
    cursor = float(player.value("document.querySelector('#error .cursor').getAttribute('x1')"))
    points = player.value("JSON.parse(document.querySelector('#error .dot.ours').dataset.points)")
    assert cursor == pytest.approx(points[2][0], abs=0.1)
    x, y = player.value(
        "(() => { const s = document.querySelector('#error'); s.scrollIntoView({block: 'center'});"
        f"const b = s.getBoundingClientRect(); return [b.x + {points[3][0]} / 480 * b.width, b.y + 60]; }})()"
    )
    player.drag((x, y), (x, y))
    assert at(player) == 6
    player.value("players[0].seek(1)")
    assert player.value("document.querySelector('#error .cursor').getAttribute('visibility')") == "hidden"


@needs_browser
def test_swiping_shows_truth_and_forecast_at_once(player):
    player.value("players[0].seek(4)")
    player.click(".view label:nth-of-type(2) span")
    assert player.value("document.querySelectorAll('.views canvas').length") == 1
    x, y = player.place(".views canvas")
    player.drag((x, y), (x - 200, y))
    divider = float(player.value("players[0].divider.value"))
    assert 10 < divider < 45
    column = "(x => [...players[0].boxes[0].canvas.getContext('2d').getImageData(x, 40, 1, 1).data].slice(0, 3))"
    record = forecast()
    left, right = player.value(f"{column}(5)"), player.value(f"{column}(90)")
    assert np.abs(np.array(left) - 255 * record.truth[1][:, 40, 5]).mean() < 60
    assert np.abs(np.array(right) - 255 * record.prediction[1][:, 40, 90]).mean() < 60
    assert "Truth | Forecast" in player.value("document.querySelector('.view-box b').textContent")
    player.value(
        "(s => { s.value = 1; s.dispatchEvent(new Event('input')); })(document.querySelector('.rival select'))"
    )
    assert "Last frame" in player.value("document.querySelector('.view-box b').textContent")
    assert at(player) == 4


@needs_browser
def test_the_error_lies_over_the_forecast_in_the_colours_of_films(browser, tmp_path):
    """Of a black forecast and a half bright truth, small enough to be kept as they are."""
    black, half = np.zeros((1, 32, 32), np.float32), np.full((1, 32, 32), 0.25, np.float32)
    browser.open(written(tmp_path, Forecast(black[None], 1, (Step(black, half),), has_truth=True)))
    browser.until("players[0].at === 0")
    browser.value("players[0].seek(1)")
    pixel = "[...players[0].boxes[1].canvas.getContext('2d').getImageData(100, 100, 1, 1).data].slice(0, 3)"
    assert browser.value(pixel) == [0, 0, 0]
    browser.click(".overlay")
    expected = render.ERROR_COLOURS[np.rint(np.rint(0.25 * 255) * 2).astype(int)]
    np.testing.assert_allclose(browser.value(pixel), expected, atol=6)  # over the darkened picture
    assert browser.value("document.querySelector('.errors .most').textContent") == "0.5+"


@needs_browser
def test_grids_are_shown_in_the_colours_of_films(browser, tmp_path):
    record = forecast(channels=2, size=(16, 8))
    browser.open(written(tmp_path, record))
    browser.until("players[0].at === 0")
    browser.value("players[0].seek(3)")
    shown = browser.value("""(({canvas}) => [...canvas.getContext('2d').getImageData(
        canvas.width * 3 / 4, canvas.height / 4, 1, 1).data].slice(0, 3))(players[0].boxes[1])""")
    level = np.rint(record.prediction[0, 1, 4, 4] / record.context.max() * 255).clip(0, 255).astype(int)
    np.testing.assert_allclose(shown, render.VALUE_COLOURS[level], atol=2)
    assert browser.value("document.querySelector('.values').hidden") is False


@needs_browser
def test_a_page_plays_by_itself_unless_motion_is_unwanted(browser, tmp_path):
    path = written(tmp_path, forecast())
    browser.open(path, still=False)
    browser.until("players[0].playing && players[0].at > 0")
    browser.open(path, still=True)
    browser.until("players[0].at === 0")
    assert not browser.value("players[0].playing")


@needs_browser
def test_every_control_has_a_name(player):
    tree = player("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "slider", "checkbox", "radio", "combobox", "img", "image"}
    nameless = [
        node for node in tree
        if node.get("role", {}).get("value") in controls and not node.get("name", {}).get("value")
    ]  # fmt: skip
    assert len([node for node in tree if node.get("role", {}).get("value") in controls]) >= 10
    assert nameless == []


@needs_browser
def test_without_a_truth_only_forecasts_play(browser, tmp_path):
    browser.open(written(tmp_path, forecast(known=0)))
    browser.until("players[0].at === 0")
    browser.value("players[0].seek(6)")
    assert browser.value("players[0].boxes.map(b => b.track.label)")[0] == "Forecast"
    assert browser.value("document.querySelector('.view').offsetParent") is None
    assert browser.messages == []


@needs_browser
def test_the_command_makes_a_page_that_plays(run, browser, tiny, tmp_path):
    clip = tmp_path / "a\"b'.mp4"
    clip.write_bytes(CLIP.read_bytes())
    code, _, err = run("predict", clip, "--weights", tiny, "-o", "page.html")
    assert code == 0, err
    browser.open(tmp_path / "page.html")
    browser.until("players[0].at === 0")
    assert browser.value("document.querySelector('h1').textContent") == "a\"b'.mp4"
    assert browser.messages == []
    assert (tmp_path / "page.html").stat().st_size < 5e6
