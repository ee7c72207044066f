"""Pages of evaluations and comparisons, and the commands that write them."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
import torch
from browser import needs_browser
from small import ready_clips
from test_pages import data

from vmrnn_cli import evaluate, score_text
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.pages import report
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.pretrained import save_model

CONFIG = VMRNNConfig(embed_dim=16, depths=(1,), context=3, horizon=2, image_size=(16, 16))


def weights(folder, name, seed):
    torch.manual_seed(seed)
    (folder / name).mkdir()
    save_model(VMRNN(CONFIG), folder / name, half=False)
    return name


def clips(count=9, seed=0):
    return np.random.default_rng(seed).random((count, 5, 1, 16, 16)).astype(np.float32)


@pytest.fixture
def setting(tmp_path):
    """Clips, and two random networks of which one has a name that is HTML."""
    np.save(tmp_path / "<b>clips.npy", clips())
    return ["--data", "<b>clips.npy"], [weights(tmp_path, "one", 0), weights(tmp_path, 'a"<i>b', 1)]


# ---- differences


def scores(values):
    return evaluate.Scores({"mse": np.asarray(values).tolist()})


def test_pairs_narrow_the_interval_of_a_difference():
    """What is hard for both is hard for both: only the difference varies."""
    rng = np.random.default_rng(0)
    hard = rng.normal(100, 30, (200, 2))
    first, second = scores(hard), scores(hard + 3 + rng.normal(0, 1, hard.shape))
    (found,) = evaluate.compared({"a": first, "b": second}, list(range(200)))
    assert (found["of"], found["less"]) == ("b", "a")
    low, high = found["mse"]["interval_95"]
    assert low < 3 < high
    assert high - low < 0.5
    assert np.ptp(second.summary()["interval_95"]["mse"]) > 5
    assert found["mse"]["difference"] == pytest.approx(3, abs=0.2)
    assert found["lower_mse_on"] < 0.1
    assert len(found["mse"]["per_frame"]) == len(found["mse"]["per_frame_interval_95"]) == 2


def test_the_interval_of_a_difference_is_that_of_its_mean():
    gap = np.random.default_rng(1).normal(1, 2, (400, 1))
    (found,) = evaluate.compared({"a": scores(np.zeros((400, 1))), "b": scores(gap)}, list(range(400)))
    low, high = found["mse"]["interval_95"]
    error = gap.std() / 20
    assert low == pytest.approx(gap.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(gap.mean() + 1.96 * error, abs=0.3 * error)


def test_clips_of_a_group_differ_together():
    once = np.random.default_rng(2).normal(0, 1, (30, 1))
    alone = evaluate.compared({"a": scores(0 * once), "b": scores(once)}, list(range(30)))
    tenfold = np.repeat(once, 10, axis=0)
    grouped = evaluate.compared({"a": scores(0 * tenfold), "b": scores(tenfold)}, np.repeat(range(30), 10).tolist())
    np.testing.assert_allclose(grouped[0]["mse"]["interval_95"], alone[0]["mse"]["interval_95"])


def test_all_pairs_are_compared_and_infinite_values_are_none():
    infinite = evaluate.Scores({"mse": [[0.0], [1.0]], "psnr": [[np.inf], [30.0]]})
    found = evaluate.compared({"a": infinite, "b": infinite, "c": infinite}, [0, 1])
    assert [(pair["of"], pair["less"]) for pair in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert found[0]["psnr"] == {
        "difference": None, "interval_95": None, "per_frame": [None], "per_frame_interval_95": [None]
    }  # fmt: skip
    assert found[0]["mse"]["interval_95"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "pair", "verdict"),
    [
        *[("mse", (-2, -1), "better"), ("mse", (1, 2), "worse"), ("mse", (-1, 2), ""), ("ssim", (0.1, 0.2), "better")],
        *[("psnr", (-2, -1), "worse"), ("sharpness", (0.1, 0.2), ""), ("mse", None, ""), ("mse", (0, 0), "")],
    ],
)
def test_what_is_certain_is_said(name, pair, verdict):
    assert score_text.verdict({"interval_95": pair}, name) == verdict


def test_the_best_of_a_row():
    rows = [{"mse": 3.0, "ssim": 0.5, "sharpness": 1.5, "psnr": None}]
    rows += [{"mse": 2.0, "ssim": 0.7, "sharpness": 0.8, "psnr": None}, {**rows[0], "mse": None}]
    assert [score_text.best(rows, name) for name in ("mse", "ssim", "sharpness", "psnr")] == [1, 1, 1, None]


# ---- the album


def test_an_album_keeps_all_of_few_clips():
    array = clips()
    album = report.Album(ready_clips(array, 5), 9, 3)
    album(range(4), array[:4], array[:4, 3:])
    album(range(4, 9), array[4:], array[4:, 3:] * 0)
    assert sorted(album.clips) == list(range(9))
    clip = album.clips[5]
    assert [track["label"] for track in clip["tracks"]] == ["Forecast", "Last frame repeated"]
    assert album.clips[0]["tracks"][0]["errors"] == [0.0, 0.0]
    np.testing.assert_allclose(
        clip["tracks"][0]["errors"], 100 * np.sqrt(np.square(array[5, 3:]).mean((1, 2, 3))), atol=1e-3
    )
    assert (len(clip["given"]), len(clip["truth"]), clip["ahead"]) == (3, 2, 2)


def test_of_many_clips_an_album_keeps_some_and_the_best_and_worst(monkeypatch):
    monkeypatch.setattr(report, "_MOST_CLIPS", 4)
    array = clips(40)
    error = np.random.default_rng(3).permutation(40) / 100
    prediction = array[:, 3:] + error[:, None, None, None, None].astype(np.float32)
    album = report.Album(ready_clips(array, 5), 40, 3)
    for first in range(0, 40, 8):
        part = slice(first, first + 8)
        album(range(40)[part], array[part], prediction[part])
    spaced = {0, 10, 20, 30}
    others = sorted(set(range(40)) - spaced, key=lambda number: error[number])
    assert set(album.clips) == spaced | {*others[:3], *others[-3:]}
    album.begin("second", 1)
    album(range(40), array, prediction)
    assert {len(clip["tracks"]) for clip in album.clips.values()} == {3}
    assert set(album.clips) == spaced | {*others[:3], *others[-3:]}


# ---- the commands


def test_eval_writes_a_page(run, setting, tmp_path):
    given, (one, _) = setting
    code, out, err = run("eval", *given, "--weights", one, "--report", "r.html", "--json")
    assert code == 0, err
    summary, page = json.loads(out), (tmp_path / "r.html").read_text()
    assert "<b>clips.npy" not in page
    assert page.count("<script") == 2
    for value in (f"{summary['mse']:.2f}", f"{summary['baseline_motion']['ssim']:.4f}"):
        assert value in page
    assert "{:.2f} - {:.2f}".format(*summary["interval_95"]["mse"]) in page
    assert "vmrnn eval --data &#39;&lt;b&gt;clips.npy&#39; --weights one --report r.html" in page
    kept = data(page)["clips"]
    assert len(kept) == 9
    order = [np.mean(np.square(clip["tracks"][0]["errors"])) for clip in kept]
    assert order == sorted(order)


def test_a_page_that_cannot_be_written_is_refused_before_the_work(run, setting, tmp_path):
    given, (one, other) = setting
    for command, named in (("eval", [one]), ("compare", [one, other])):
        assert run(command, *given, "--weights", *named, "--report", "r.pdf")[0] == 2
        assert run(command, *given, "--weights", *named, "--report", "no/r.html")[0] == 2
        (tmp_path / "r.html").write_text("old")
        assert run(command, *given, "--weights", *named, "--report", "r.html")[0] == 2
        assert (tmp_path / "r.html").read_text() == "old"


def test_compare_prints_and_writes_the_same_differences(run, setting, tmp_path):
    given, named = setting
    code, out, err = run("compare", *given, "--weights", *named, "--report", "c.html", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert list(summary["weights"]) == named
    (pair,) = summary["differences"]
    first, second = (summary["weights"][name]["mse"] for name in named)
    assert pair["mse"]["difference"] == pytest.approx(second - first)
    for name in named:
        alone = json.loads(run("eval", *given, "--weights", name, "--json")[1])
        assert alone["mse"] == summary["weights"][name]["mse"]
        assert alone["interval_95"] == summary["weights"][name]["interval_95"]
    page = (tmp_path / "c.html").read_text()
    assert 'a"<i>b' not in page
    assert f"{pair['mse']['difference']:+.2f}" in page
    assert [track["label"] for track in data(page)["clips"][0]["tracks"]] == [*named, "Last frame repeated"]
    code, out, err = run("compare", *given, "--weights", *named, "--limit", "4")
    assert code == 0, err
    assert re.search(r"MSE +[+-]\d", out)


def test_compare_wants_two_that_fit_the_same_clips(run, setting, tmp_path):
    given, (one, _) = setting
    assert "1 weights make no comparison" in run("compare", *given, "--weights", one)[2]
    assert "named twice" in run("compare", *given, "--weights", one, one)[2]
    torch.manual_seed(0)
    (tmp_path / "two").mkdir()
    two_channels = VMRNNConfig(embed_dim=16, depths=(1,), image_channels=2, context=3, horizon=2, image_size=(16, 16))
    save_model(VMRNN(two_channels), tmp_path / "two", half=False)
    code, _, err = run("compare", *given, "--weights", one, "two")
    assert code == 2
    assert "channels" in err


def test_watching_costs_little(tmp_path):
    """A page of 120 clips takes at most half the time of the evaluation itself."""
    array = np.random.default_rng(0).random((120, 5, 1, 64, 64)).astype(np.float32)
    dataset = ready_clips(array, 5)
    torch.manual_seed(0)
    predictor = Predictor(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,))))
    album = report.Album(dataset, 120, 3)
    kept = 0.0

    def watch(*batch):
        nonlocal kept
        begin = time.process_time()
        album(*batch)
        kept += time.process_time() - begin

    begin = time.process_time()
    evaluate.evaluate(predictor, dataset, context=3, horizon=2, watch=watch)
    assert kept < 0.5 * (time.process_time() - begin - kept)
    assert len(album.clips) == 120


# ---- in a browser


@needs_browser
def test_a_report_plays_the_clip_that_is_chosen(run, setting, browser, tmp_path):
    given, named = setting
    assert run("compare", *given, "--weights", *named, "--report", "c.html")[0] == 0
    for width in (1280, 390):
        browser.open(tmp_path / "c.html", width)
        browser.until("players[0].at === 0")
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.messages == []
        assert len(browser.requests) == 1
    browser.open(tmp_path / "c.html")
    browser.until("players[0].at === 0")
    assert browser.value("players[0].boxes.map(b => b.track.label)") == ["Truth", *named, "Last frame repeated"]
    browser.click("circle[data-clip='4']")
    browser.until("players[0].number === 4 && players[0].playing")
    assert browser.value("document.querySelector('select.clips').value") == "4"
    assert browser.value("document.querySelectorAll('.point.shown').length") == 1
    browser.click(".picks button:last-of-type")
    browser.until("players[0].number !== 4")
    browser.value("(s => { s.value = '2'; s.dispatchEvent(new Event('input')); })(document.querySelector('.clips'))")
    browser.until("players[0].number === 2")
    assert browser.value("document.querySelector('h1').textContent") == 'one against a"<i>b'
