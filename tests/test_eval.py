"""Metrics in their right and their published conventions, and the evaluation command."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vmrnn_cli import data, evaluate, metrics
from vmrnn_cli.__main__ import run as run_command
from vmrnn_cli.data import arrays, moving_mnist
from vmrnn_cli.digits import draw_digit
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.pretrained import save_model


def frames(channels=1, side=24, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((channels, side, side)).astype(np.float32)
    return np.clip(truth + 0.1 * rng.standard_normal(truth.shape), 0, 1).astype(np.float32), truth


def test_mse_and_mae_are_sums_over_a_frame():
    a, b = np.zeros((2, 3, 4), np.float32), np.full((2, 3, 4), 0.5, np.float32)
    assert metrics.mse(a, b) == pytest.approx(24 * 0.25)
    assert metrics.mae(a, b) == pytest.approx(24 * 0.5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_psnr_and_ssim_are_those_of_everybody(channels):
    a, b = frames(channels)
    assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), rel=1e-5)
    assert metrics.ssim(a, b) == pytest.approx(structural_similarity(a, b, data_range=1, channel_axis=0))


def test_published_conventions_are_kept_apart():
    a, b = frames()
    assert metrics.ssim_published(a, b) == pytest.approx(structural_similarity(a, b, data_range=2, channel_axis=0))
    assert metrics.ssim_published(a, b) > metrics.ssim(a, b)
    # 10 - 250 is 16 in uint8, and 16 squared is 0: the published PSNR does not see the largest errors.
    dark, bright = np.full((1, 8, 8), 10 / 255, np.float32), np.full((1, 8, 8), 250.2 / 255, np.float32)
    assert metrics.psnr_published(dark, bright) == math.inf
    assert metrics.psnr(dark, bright) < 1
    small = b + np.float32(3.2 / 255)
    assert metrics.psnr_published(small, b) == pytest.approx(20 * math.log10(255 / 3), abs=1)


def test_small_and_equal_frames():
    a, b = frames(side=5)
    assert 0 < metrics.ssim(a, b) < 1
    assert math.isnan(metrics.ssim(a[:, :2], b[:, :2]))
    assert metrics.psnr(a, a) == math.inf
    score = metrics.Score()
    assert score.means() is None
    score.add(a, a)
    assert score.means() == {"mse": 0.0, "ssim": pytest.approx(1.0), "psnr": None}


def test_baselines():
    context = np.linspace(0, 0.6, 4, dtype=np.float32).reshape(1, 4, 1, 1, 1)
    np.testing.assert_allclose(evaluate.last_frame(context, 2).ravel(), [0.6, 0.6], rtol=1e-6)
    np.testing.assert_allclose(evaluate.linear_extrapolation(context, 3).ravel(), [0.8, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(evaluate.linear_extrapolation(context[:, :1], 2).ravel(), [0, 0])


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


def test_a_perfect_forecast_is_shown_as_such(vmrnn, setting, tmp_path):
    np.save(tmp_path / "still.npy", np.full((3, 20, 1, 64, 64), 128, np.uint8))
    code, out, err = vmrnn("eval", "--data", "still.npy", *setting[3:])
    assert code == 0, err
    row = next(line for line in out.splitlines() if "PSNR dB" in line)
    assert [cell.strip()[0] for cell in row.split("│")[3:5]] == ["∞", "∞"]


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
def vmrnn(tmp_path, monkeypatch, capsys):
    import signal

    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def vmrnn(*arguments):
        code = run_command([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield vmrnn
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def setting(tmp_path):
    """Six clips as the published test file has them, and random weights for 4 -> 3."""
    digits = np.stack([draw_digit(n, np.random.default_rng(n)) for n in range(10)])
    moving_mnist.write_test_file(tmp_path / "mnist_test_seq.npy", digits, 6, 0, overwrite=False)
    torch.manual_seed(0)
    (tmp_path / "w").mkdir()
    save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), context=4, horizon=3)), tmp_path / "w")
    return ["eval", "--data", tmp_path / "mnist_test_seq.npy", "--weights", tmp_path / "w"]


def test_json_has_the_promised_keys(vmrnn, setting, tmp_path):
    code, out, err = vmrnn(*setting, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    names = {"mse", "mae", "ssim", "psnr", "ssim_published", "psnr_published"}
    assert names | {"per_frame", "baseline_last_frame", "clips", "context", "horizon", "weights"} <= set(result)
    assert (result["clips"], result["context"], result["horizon"]) == (6, 4, 3)
    for scores in (result, result["baseline_last_frame"], result["baseline_linear"]):
        assert set(scores["per_frame"]) == names
        assert all(len(values) == 3 for values in scores["per_frame"].values())
        assert scores["mse"] == pytest.approx(np.mean(scores["per_frame"]["mse"]))
    clips = np.load(tmp_path / "mnist_test_seq.npy").astype(np.float64) / 255  # (20, N, 64, 64)
    repeated = [np.square(clips[4 + i] - clips[3]).sum((1, 2)).mean() for i in range(3)]
    np.testing.assert_allclose(result["baseline_last_frame"]["per_frame"]["mse"], repeated, rtol=1e-5)


def test_a_plot_that_would_be_written_over(vmrnn, setting):
    code, _, err = vmrnn(*setting, "--plot", "worst-1.png", "--save-worst", 1, "--overwrite")
    assert code == 2
    assert "--plot" in err


def test_size_is_for_folders(vmrnn, setting):
    code, _, err = vmrnn(*setting, "--size", 32)
    assert code == 2
    assert "--size" in err


def test_small_grids(vmrnn, setting, tmp_path):
    """What they are divided by is told, and a split that is too short is one line that names the way out."""
    np.save(tmp_path / "flow.npy", np.arange(120, dtype=np.float32).repeat(128).reshape(120, 1, 8, 16))
    grid = ["eval", "--data", "flow.npy", "--weights", tmp_path / "w"]
    code, out, _ = vmrnn(*grid, "--json")
    assert (code, json.loads(out)["divided_by"]) == (0, 95)
    np.save(tmp_path / "short.npy", np.zeros((5, 2, 8, 16)))
    code, _, err = vmrnn("eval", "--data", "short.npy")
    assert code == 2
    assert "too few for 4 + 4" in err
    assert "--split" in err


def test_table_plot_and_worst(vmrnn, setting, tmp_path):
    code, out, err = vmrnn(*setting, "--plot", "q.png", "--save-worst", 2, "--limit", 3, "--batch-size", 2)
    assert code == 0, err
    assert "SSIM as published" in out
    assert "3 clips" in out
    assert {p.name for p in tmp_path.glob("*.png")} == {"q.png", "worst-1.png", "worst-2.png"}


def test_table_is_whole_over_long_horizons(vmrnn, setting):
    summary = json.loads(vmrnn(*setting, "--json", "--limit", 1, "--horizon", 16)[1])
    out = vmrnn(*setting, "--limit", 1, "--horizon", 16)[1]
    forecasts = (summary, summary["baseline_last_frame"], summary["baseline_linear"])
    for step in (1, 16):
        (row,) = (line for line in out.splitlines() if f" +{step} " in line)
        assert all(f" {scores['per_frame']['mse'][step - 1]:.1f} " in row for scores in forecasts)


def test_forecasts_that_are_not_finite_have_no_score(vmrnn, setting, monkeypatch):
    def step(model, frame, states):
        broken = frame.clone()
        broken[0] = math.nan  # of one clip among several
        return broken, states

    monkeypatch.setattr(VMRNN, "forward", step)
    code, out, err = vmrnn(*setting, "--json")
    assert (code, out) == (1, "")
    assert "not finite" in err


def test_a_single_sequence_is_a_data_set(vmrnn, setting, tmp_path):
    np.save(tmp_path / "one.npy", np.load(tmp_path / "mnist_test_seq.npy")[:, 0])
    one = json.loads(vmrnn(*setting, "--data", "one.npy", "--json")[1])
    first = json.loads(vmrnn(*setting, "--limit", 1, "--json")[1])
    assert one["per_frame"] == first["per_frame"]


@pytest.mark.parametrize("able", [True, False])
def test_says_what_runs(vmrnn, setting, monkeypatch, able):
    known = {"architecture": "x86_64", "avx512_bf16": able, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    err = vmrnn(*setting, "--limit", 1, "--horizon", 1, "--dtype", "bfloat16", "--scan", "torch")[2]
    (line,) = (line for line in err.splitlines() if line.endswith("scan torch"))
    assert line.startswith("w on cpu (")
    assert ("emulated" in line) is not able
    assert "emulated" not in vmrnn(*setting, "--limit", 1, "--horizon", 1)[2]


def test_outputs_that_are_there_are_refused_before_the_work(vmrnn, setting, tmp_path, monkeypatch):
    (tmp_path / "worst-2.png").touch()
    monkeypatch.setattr(evaluate, "evaluate", None)
    code, _, err = vmrnn(*setting, "--save-worst", 2)
    assert code == 2
    assert "worst-2.png already exists" in err


def test_batches_change_nothing(vmrnn, setting):
    one, six = (json.loads(vmrnn(*setting, "--json", "--batch-size", n)[1]) for n in (1, 6))
    assert one["mse"] == pytest.approx(six["mse"], rel=1e-5)


def test_lpips_of_gray_frames_in_the_range_it_wants(vmrnn, setting, monkeypatch):
    """The network is a stand-in: its weights would have to be downloaded."""
    seen = []

    def network(prediction, truth):
        seen.append(truth)
        return (prediction - truth).abs().mean()

    monkeypatch.setattr(metrics, "lpips_network", lambda: network)
    result = json.loads(vmrnn(*setting, "--json", "--lpips", "--limit", 2)[1])
    assert all(frame.shape == (1, 3, 64, 64) for frame in seen)
    assert min(frame.min() for frame in seen) == -1
    assert max(frame.max() for frame in seen) > 0.9
    assert result["lpips"] == pytest.approx(2 * result["mae"] / 64**2, rel=1e-5)
    for scores in (result, result["baseline_last_frame"], result["baseline_linear"]):
        assert len(scores["per_frame"]["lpips"]) == 3
    assert "LPIPS" in vmrnn(*setting, "--lpips", "--limit", 1)[1]
    assert "lpips" not in json.loads(vmrnn(*setting, "--json", "--limit", 1)[1])


def test_lpips_without_its_packages(vmrnn, setting, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    code, out, err = vmrnn(*setting, "--lpips", "--json")
    assert (code, out) == (2, "")
    assert "pip install 'vmrnn[lpips]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("failure", "says"),
    [(OSError("no route to host\nmore"), "no route to host"), (pickle.UnpicklingError("code"), "no weights file")],
)
def test_lpips_weights_are_never_unpickled(monkeypatch, failure, says):
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(variable, raising=False)

    def load(net_type):
        assert (net_type, os.environ[variable]) == ("alex", "1")
        raise failure

    for name in ("torchvision", "torchmetrics", "torchmetrics.image", "torchmetrics.image.lpip"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchmetrics.image.lpip"].LearnedPerceptualImagePatchSimilarity = load
    with pytest.raises(VMRNNError, match=says) as caught:
        metrics.lpips_network()
    assert "\n" not in str(caught.value)
    assert variable not in os.environ


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 31, 64)])
def test_frames_that_have_no_lpips(shape):
    with pytest.raises(InputError, match="LPIPS"):
        metrics.check_lpips_frames(shape)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--limit", 0], ["--batch-size", 0], ["--plot", "q.jpg"], ["--split", "some"], ["--dataset", "kth"],
        ["--context", 30], ["--weights", "nothing"], ["--device", "toaster"], ["--horizon", 0], ["--context", 0],
        ["--horizon", "9" * 10], ["--size", 0], ["--save-worst", 10**9], ["--save-worst", -1],
        ["--save-worst", 1, "--out", "mnist_test_seq.npy"],
        ["--save-worst", 1, "--out", "mnist_test_seq.npy/a"],
        ["--data", "rgb.npy"],
    ],
    ids=str,
)  # fmt: skip
def test_wrong_usage(vmrnn, setting, tmp_path, arguments):
    np.save(tmp_path / "rgb.npy", np.zeros((2, 7, 3, 16, 16), np.uint8))
    before = sorted(tmp_path.iterdir())
    code, out, err = vmrnn(*setting, *arguments)
    assert (code, out) == (2, "")
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((20, 2, 64, 64), "vmrnn-d-mmnist-small"),
        ((90, 2, 16, 8), "vmrnn-b-bikenyc"),
        ((1, 30, 32, 32), "vmrnn-b-natural"),
    ],
)
def test_weights_that_fit_the_data(vmrnn, tmp_path, shape, chosen):
    clips = np.zeros(shape, np.uint8 if shape[-1] == 64 else np.float32)
    clips[..., 4:8] = clips.dtype.type(1) if clips.dtype == np.float32 else 255
    np.save(tmp_path / "clips.npy", clips)
    code, out, err = vmrnn("eval", "--data", "clips.npy", "--limit", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["weights"] == chosen


def test_a_folder_of_videos_gets_the_default_weights_without_a_look(tmp_path):
    assert data.first_frame(tmp_path) is None


def test_make_a_test_file(vmrnn, tmp_path):
    for name in ("a.npy", "b.npy"):
        assert vmrnn("data", "make", "moving-mnist", name, "--clips", 3, "--seed", 4)[0] == 0
    a = np.load(tmp_path / "a.npy")
    assert (a.shape, a.dtype) == ((20, 3, 64, 64), np.uint8)
    np.testing.assert_array_equal(a, np.load(tmp_path / "b.npy"))
    assert vmrnn("data", "make", "moving-mnist", "a.npy")[0] == 2
    assert vmrnn("data", "make", "kth", "c.npy")[0] == 2
    assert not Path("c.npy").exists()
