"""Scores of a data set, and the command that prints them."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch

from vmrnn_cli import data, evaluate, metrics
from vmrnn_cli.data import arrays, moving_mnist
from vmrnn_cli.digits import draw_digit
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.pretrained import save_model


def test_interval_narrows_with_clips_and_holds_the_mean():
    rng = np.random.default_rng(0)
    few, many = (evaluate.Scores({"mse": rng.normal(50, 10, (n, 3)).tolist()}).summary() for n in (10, 1000))
    for summary in (few, many):
        low, high = summary["interval_95"]["mse"]
        assert low < summary["mse"] < high
    width = [np.ptp(s["interval_95"]["mse"]) for s in (few, many)]
    assert width[1] < width[0] / 4


def test_clips_of_a_group_are_drawn_together():
    """Ten times the same clips say no more than once."""
    once = np.random.default_rng(2).normal(50, 10, (30, 1))
    tenfold = evaluate.Scores({"mse": np.repeat(once, 10, axis=0).tolist()})
    alone = evaluate.Scores({"mse": once.tolist()}).summary()
    grouped = tenfold.summary(np.repeat(np.arange(30), 10).tolist())
    np.testing.assert_allclose(grouped["interval_95"]["mse"], alone["interval_95"]["mse"])
    assert np.ptp(tenfold.summary()["interval_95"]["mse"]) < np.ptp(alone["interval_95"]["mse"]) / 2
    assert tenfold.summary([0] * 300)["interval_95"]["mse"] is None


def test_groups_of_unequal_size_keep_the_mean():
    values = np.concatenate([np.full((1, 1), 0.0), np.full((3, 1), 1.0)])
    low, high = evaluate.Scores({"mse": values.tolist()}).summary([0, 1, 1, 1])["interval_95"]["mse"]
    assert (low, high) == (0.0, 1.0)


def test_intervals_per_frame_ahead():
    values = np.random.default_rng(1).normal([10, 100], [1, 20], (400, 2))
    summary = evaluate.Scores({"mse": values.tolist()}).summary()
    for column, (low, high) in zip(values.T, summary["per_frame_interval_95"]["mse"], strict=True):
        error = column.std() / 20  # of the mean of 400
        assert low == pytest.approx(column.mean() - 1.96 * error, abs=0.3 * error)
        assert high == pytest.approx(column.mean() + 1.96 * error, abs=0.3 * error)
    exact = evaluate.Scores({"psnr": [[30.0, math.inf], [20.0, 40.0]]}).summary()
    assert (exact["psnr"], exact["per_frame"]["psnr"]) == (None, [25.0, None])  # not that of the other frames
    assert exact["interval_95"]["psnr"] is None
    assert exact["per_frame_interval_95"]["psnr"] == [[20.0, 30.0], None]
    assert evaluate.Scores({"mse": [[1.0, 2.0]]}).summary()["interval_95"]["mse"] is None  # nothing to draw from


def test_a_perfect_forecast_is_shown_as_such(run, setting, tmp_path):
    np.save(tmp_path / "still.npy", np.full((3, 20, 1, 64, 64), 128, np.uint8))
    code, out, err = run("eval", "--data", "still.npy", *setting[3:])
    assert code == 0, err
    row = next(line for line in out.splitlines() if "PSNR dB" in line)
    assert [cell.strip()[0] for cell in row.split("│")[3:4]] == ["∞"]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shares_make_up_the_whole(world):
    """Four batches of seven clips, two of them equal, on fewer, and on more ranks than batches."""
    array = np.random.default_rng(0).random((7, 4, 1, 8, 8)).astype(np.float32)
    array[5] = array[1]
    torch.manual_seed(0)
    predictor = Predictor(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,))))
    parts = []

    class Rank:
        def __init__(self, rank):
            self.rank, self.world = rank, world

        def gather(self, own):
            parts.append(own)
            return parts if len(parts) == world else [own]

    def score(ranks=None):
        clips = arrays.ReadyClips("clips", array, 4)
        return evaluate.evaluate(
            predictor, clips, context=2, horizon=2, batch_size=2, names=evaluate.FAST, keep_worst=7, ranks=ranks
        )

    whole = score()
    merged = [score(Rank(rank)) for rank in range(world)][-1]
    assert merged.model.values == whole.model.values
    assert merged.summary() == whole.summary()
    assert [forecast.number for forecast in merged.worst] == [forecast.number for forecast in whole.worst]
    assert sorted(forecast.number for forecast in whole.worst) == list(range(7))


@pytest.mark.parametrize(("spread", "chosen"), [(False, [0, 1, 2, 3]), (True, [0, 2, 5, 7])])
def test_limited_clips(spread, chosen):
    array = np.linspace(0, 1, 10, dtype=np.float32).reshape(10, 1, 1, 1, 1) * np.ones((1, 3, 1, 8, 8), np.float32)
    predictor = Predictor(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,))))
    clips = arrays.ReadyClips("clips", array, 3)
    result = evaluate.evaluate(
        predictor, clips, context=2, horizon=1, batch_size=3, limit=4, spread=spread, keep_worst=4
    )
    assert sorted(forecast.number for forecast in result.worst) == chosen
    for forecast in result.worst:
        np.testing.assert_array_equal(forecast.clip, array[forecast.number])


@pytest.fixture
def setting(tmp_path):
    """Six clips as the published test file has them, and random weights for 4 -> 3."""
    digits = np.stack([draw_digit(n, np.random.default_rng(n)) for n in range(10)])
    moving_mnist.write_test_file(tmp_path / "mnist_test_seq.npy", digits, 6, 0, overwrite=False)
    torch.manual_seed(0)
    (tmp_path / "w").mkdir()
    save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), context=4, horizon=3)), tmp_path / "w")
    return ["eval", "--data", tmp_path / "mnist_test_seq.npy", "--weights", tmp_path / "w"]


def test_json_has_the_promised_keys(run, setting, tmp_path):
    code, out, err = run(*setting, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    names = {"mse", "mae", "ssim", "psnr", "sharpness", "ssim_published", "psnr_published"}
    assert names | {"per_frame", "baseline_last_frame", "clips", "context", "horizon", "weights"} <= set(result)
    assert (result["clips"], result["context"], result["horizon"]) == (6, 4, 3)
    for scores in (result, result["baseline_last_frame"], result["baseline_motion"]):
        assert set(scores["per_frame"]) == names
        assert all(len(values) == 3 for values in scores["per_frame"].values())
        assert scores["mse"] == pytest.approx(np.mean(scores["per_frame"]["mse"]))
    assert 0 <= result["baseline_last_frame"]["beaten_on"] <= 1
    clips = np.load(tmp_path / "mnist_test_seq.npy").astype(np.float64) / 255  # (20, N, 64, 64)
    repeated = [np.square(clips[4 + i] - clips[3]).sum((1, 2)).mean() for i in range(3)]
    np.testing.assert_allclose(result["baseline_last_frame"]["per_frame"]["mse"], repeated, rtol=1e-5)


def test_a_plot_that_would_be_written_over(run, setting):
    code, _, err = run(*setting, "--plot", "worst-1.png", "--save-worst", 1, "--overwrite")
    assert code == 2
    assert "--plot" in err


def test_size_is_for_folders(run, setting):
    code, _, err = run(*setting, "--size", 32)
    assert code == 2
    assert "--size" in err


def test_small_grids(run, setting, tmp_path):
    """What they are divided by is told, and a split that is too short is one line that names the way out."""
    np.save(tmp_path / "flow.npy", np.linspace(0, 1, 120, dtype=np.float32).repeat(128).reshape(120, 1, 8, 16))
    grid = ["eval", "--data", "flow.npy", "--weights", tmp_path / "w"]
    code, out, _ = run(*grid, "--json")
    assert (code, json.loads(out)["divided_by"]) == (0, 1)
    assert "divided_by" not in json.loads(run(*setting, "--json", "--limit", 1)[1])  # clips have no units
    np.save(tmp_path / "short.npy", np.zeros((5, 2, 8, 16)))
    code, _, err = run("eval", "--data", "short.npy")
    assert code == 2
    assert "too few for 4 + 4" in err
    assert "--split" in err


def test_frames_ahead_had_another_name(run, setting):
    old, new = (json.loads(run(*setting, "--json", "--limit", 1, name, 2)[1]) for name in ("--horizon", "--frames"))
    assert old == new
    assert old["horizon"] == 2
    for command in ("eval", "train"):
        text = run(command, "--help")[1]
        assert "--frames" in text
        assert "--horizon" not in text


def test_data_is_opened_once(run, tmp_path, monkeypatch):
    """Though it says itself which weights fit it."""
    opened, read = [], data.read_arrays
    monkeypatch.setattr(data, "read_arrays", lambda path: opened.append(path) or read(path))
    np.save(tmp_path / "grid.npy", np.zeros((90, 2, 16, 8), np.float32))
    assert run("eval", "--data", "grid.npy", "--limit", 1, "--json")[0] == 0
    assert len(opened) == 1


def test_other_rivals(monkeypatch):
    black = {"baseline_black": lambda given, ahead: iter([np.zeros_like(given[:, 0])] * ahead)}
    monkeypatch.setattr(evaluate, "RIVALS", black)
    array = np.random.default_rng(0).random((5, 3, 1, 8, 8)).astype(np.float32)
    predictor = Predictor(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,))))
    clips = arrays.ReadyClips("clips", array, 3)
    summary = evaluate.evaluate(predictor, clips, context=2, horizon=1).summary()
    assert "baseline_last_frame" not in summary
    assert summary["baseline_black"]["mse"] == pytest.approx(np.square(array[:, 2]).sum((1, 2, 3)).mean(), rel=1e-5)


def test_table_plot_and_worst(run, setting, tmp_path):
    code, out, err = run(*setting, "--plot", "q.png", "--save-worst", 2, "--limit", 3, "--batch-size", 2)
    assert code == 0, err
    assert "SSIM as published" in out
    assert "3 clips" in out
    assert {p.name for p in tmp_path.glob("*.png")} == {"q.png", "worst-1.png", "worst-2.png"}


def test_table_is_whole_over_long_horizons(run, setting):
    summary = json.loads(run(*setting, "--json", "--limit", 1, "--frames", 16)[1])
    out = run(*setting, "--limit", 1, "--frames", 16)[1]
    forecasts = (summary, summary["baseline_last_frame"], summary["baseline_motion"])
    for step in (1, 16):
        (row,) = (line for line in out.splitlines() if f" +{step} " in line)
        assert all(f" {scores['per_frame']['mse'][step - 1]:.1f} " in row for scores in forecasts)


def test_forecasts_that_are_not_finite_have_no_score(run, setting, monkeypatch):
    def step(model, frame, states):
        broken = frame.clone()
        broken[0] = math.nan  # of one clip among several
        return broken, states

    monkeypatch.setattr(VMRNN, "forward", step)
    code, out, err = run(*setting, "--json")
    assert (code, out) == (1, "")
    assert "not finite" in err


def test_a_single_sequence_is_a_data_set(run, setting, tmp_path):
    np.save(tmp_path / "one.npy", np.load(tmp_path / "mnist_test_seq.npy")[:, 0])
    one = json.loads(run(*setting, "--data", "one.npy", "--json")[1])
    first = json.loads(run(*setting, "--limit", 1, "--json")[1])
    assert one["per_frame"] == first["per_frame"]


@pytest.mark.parametrize("able", [True, False])
def test_says_what_runs(run, setting, monkeypatch, able):
    known = {"architecture": "x86_64", "avx512_bf16": able, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    err = run(*setting, "--limit", 1, "--frames", 1, "--dtype", "bfloat16", "--scan", "torch")[2]
    (line,) = (line for line in err.splitlines() if line.endswith("scan torch"))
    assert line.startswith("w on cpu (")
    assert ("emulated" in line) is not able
    assert "emulated" not in run(*setting, "--limit", 1, "--frames", 1)[2]


def test_outputs_that_are_there_are_refused_before_the_work(run, setting, tmp_path, monkeypatch):
    (tmp_path / "worst-2.png").touch()
    monkeypatch.setattr(evaluate, "evaluate", None)
    code, _, err = run(*setting, "--save-worst", 2)
    assert code == 2
    assert "worst-2.png already exists" in err


def test_batches_change_nothing(run, setting):
    one, six = (json.loads(run(*setting, "--json", "--batch-size", n)[1]) for n in (1, 6))
    assert one["mse"] == pytest.approx(six["mse"], rel=1e-5)


def test_lpips_of_gray_frames_in_the_range_it_wants(run, setting, monkeypatch):
    """The network is a stand-in: its weights would have to be downloaded."""
    seen = []

    def network(prediction, truth):
        seen.append(truth)
        return (prediction - truth).abs().mean()

    monkeypatch.setattr(metrics, "lpips_network", lambda: network)
    result = json.loads(run(*setting, "--json", "--lpips", "--limit", 2)[1])
    assert all(frame.shape == (1, 3, 64, 64) for frame in seen)
    assert min(frame.min() for frame in seen) == -1
    assert max(frame.max() for frame in seen) > 0.9
    assert result["lpips"] == pytest.approx(2 * result["mae"] / 64**2, rel=1e-5)
    for scores in (result, result["baseline_last_frame"], result["baseline_motion"]):
        assert len(scores["per_frame"]["lpips"]) == 3
    assert "LPIPS" in run(*setting, "--lpips", "--limit", 1)[1]
    assert "lpips" not in json.loads(run(*setting, "--json", "--limit", 1)[1])


def test_lpips_without_its_packages(run, setting, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    code, out, err = run(*setting, "--lpips", "--json")
    assert (code, out) == (2, "")
    assert "pip install 'vmrnn[lpips]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--limit", 0], ["--batch-size", 0], ["--plot", "q.jpg"], ["--split", "some"], ["--dataset", "kth"],
        ["--context", 30], ["--weights", "nothing"], ["--device", "toaster"], ["--frames", 0], ["--context", 0],
        ["--frames", "9" * 10], ["--size", 0], ["--size", "40x24"], ["--save-worst", 10**9], ["--save-worst", -1],
        ["--save-worst", 1, "--out", "mnist_test_seq.npy"],
        ["--save-worst", 1, "--out", "mnist_test_seq.npy/a"],
        ["--data", "rgb.npy"],
    ],
    ids=str,
)  # fmt: skip
def test_wrong_usage(run, setting, tmp_path, arguments):
    np.save(tmp_path / "rgb.npy", np.zeros((2, 7, 3, 16, 16), np.uint8))
    before = sorted(tmp_path.iterdir())
    code, out, err = run(*setting, *arguments)
    assert (code, out) == (2, "")
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((20, 2, 64, 64), "vmrnn-d-mmnist-small"),
        ((90, 2, 16, 8), "vmrnn-b-bikenyc"),
        ((1, 30, 32, 32), "vmrnn-d-motion"),
        ((320, 3, 16, 8), "vmrnn-d-motion"),
        ((320, 4, 16, 8), "vmrnn-d-motion"),
    ],
)
def test_weights_that_fit_the_data(run, tmp_path, shape, chosen):
    clips = np.zeros(shape, np.uint8 if shape[-1] == 64 else np.float32)
    clips[..., 4:8] = clips.dtype.type(1) if clips.dtype == np.float32 else 255
    np.save(tmp_path / "clips.npy", clips)
    code, out, err = run("eval", "--data", "clips.npy", "--limit", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["weights"] == chosen


def test_a_folder_of_videos_gets_the_default_weights_without_a_look(tmp_path):
    assert data.DataSource(tmp_path).first_frame() is None


def test_how_often_a_rival_is_beaten():
    def scores(rows):
        return evaluate.Scores({"mse": rows})

    done = evaluate.Evaluation(
        scores([[1.0, 3.0], [1.0, 1.0], [5.0, 5.0]]),
        {"rival": scores([[2.0, 3.0], [1.0, 1.0], [1.0, 9.5]])},
        3,
        [],
        [0, 1, 2],
    )
    assert done.summary()["rival"]["beaten_on"] == pytest.approx(2 / 3)  # the first and the last; of equals none
