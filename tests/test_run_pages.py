"""The page of a training run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from browser import needs_browser
from PIL import Image
from test_pages import data

from vmrnn_cli.pages.run import RunPage

SETTINGS = 'data = "</pre><b>clips.npy"\nsteps = 40\n'


def rows(steps, every=10):
    """Lines of metrics.csv with an evaluation after every so many steps."""
    return [
        {
            "step": str(step), "epoch": "0", "clips": str(4 * step), "seconds": str(2 * step), "lr": "0.001",
            "loss": str(1 / step), "grad_norm": "0.5", "clips_per_s": "2.0",
            "eval_mse": str(100 / step) if step % every == 0 else "",
            "eval_last_frame": "50.0" if step % every == 0 else "",
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    """A run's folder with settings and four samples, each of a brightness of its own."""
    folder = tmp_path / "<i>run"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.toml").write_text(SETTINGS)
    for step in (10, 20, 30, 40):
        Image.fromarray(np.full((40, 200, 3), 2 * step, np.uint8)).save(folder / "samples" / f"step-{step:07d}.png")
    return folder


def write(folder, steps, page=None):
    (page or RunPage(folder)).write(folder / "report.html", rows(steps), folder / "config.toml")
    return (folder / "report.html").read_text()


def test_a_page_tells_of_a_run(run_folder):
    page = write(run_folder, 40)
    assert "<i>run" not in page
    assert "</pre><b>" not in page
    assert "&lt;/pre&gt;&lt;b&gt;clips.npy" in page
    assert "MSE of <strong>2.5</strong>, at step 40" in page
    assert page.count("<svg") == 5
    assert [name for name, _ in data(page, "samples")] == ["step 10", "step 20", "step 30", "step 40"]


def test_a_page_knows_nothing_beyond_where_the_run_is(run_folder):
    """A run that goes on from a checkpoint before its last sample has yet to make that one again."""
    page = write(run_folder, 25)
    assert [name for name, _ in data(page, "samples")] == ["step 10", "step 20"]
    assert "at step 20" in page


def test_of_many_samples_some_are_shown(run_folder):
    for step in range(50, 1050, 10):
        Image.new("RGB", (8, 8)).save(run_folder / "samples" / f"step-{step:07d}.png")
    names = [name for name, _ in data(write(run_folder, 1040), "samples")]
    assert len(names) == len(set(names)) == 24
    assert (names[0], names[-1]) == ("step 10", "step 1040")


def test_before_the_first_evaluation_there_are_curves_alone(tmp_path):
    (tmp_path / "config.toml").write_text("")
    page = write(tmp_path, 5)
    assert page.count("<svg") == 4
    assert 'id="samples"' not in page


def test_a_long_run_has_a_small_page_soon(run_folder):
    begin = time.process_time()
    page = write(run_folder, 50000)
    assert len(page) < 300_000
    assert time.process_time() - begin < 10


def test_train_writes_the_page_and_resume_goes_on_in_it(run, tmp_path):
    np.save(tmp_path / "clips.npy", np.random.default_rng(0).integers(0, 255, (12, 5, 1, 16, 16), np.uint8))
    common = ["train", "--batch-size", "4", "--eval-every", "2", "--threads", "1", "-q", "--out", "run"]
    first = [*common, "--data", "clips.npy", "--context", "3", "--horizon", "2", "--preset", "tiny", "--steps", "2"]
    code, _, err = run(*first)
    assert code == 0, err
    before = (tmp_path / "run" / "report.html").read_text()
    code, _, err = run(*common, "--resume", "--steps", "4")
    assert code == 0, err
    after = (tmp_path / "run" / "report.html").read_text()
    for page, steps in ((before, [2]), (after, [2, 4])):
        assert [name for name, _ in data(page, "samples")] == [f"step {step}" for step in steps]
    assert "steps = 4" in after


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_samples_are_chosen_by_a_slider(browser, run_folder, width):
    write(run_folder, 40)
    browser.open(run_folder / "report.html", width)
    assert browser.value("document.querySelector('.sample output').textContent") == "step 40"
    browser.until("document.querySelector('.sample img').naturalWidth === 200")
    browser.value(
        "(s => { s.value = 1; s.dispatchEvent(new Event('input')); })(document.querySelector('.sample input'))"
    )
    assert browser.value("document.querySelector('.sample output').textContent") == "step 20"
    assert "step 20" in browser.value("document.querySelector('.sample img').alt")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelector('h1').textContent") == "<i>run"
    assert browser.messages == []
    assert len(browser.requests) == 1
