"""The forecast is the network's, of the frames that were asked for, and scored against what really came."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import CLIP, DIGITS, one_error_line

from vmrnn_cli import InputError, predict, video
from vmrnn_cli.config import MotionConfig
from vmrnn_cli.model import VMRNN, VMRNNConfig, rollout
from vmrnn_cli.motion_network import MotionVMRNN
from vmrnn_cli.pretrained import load_model, save_model
from vmrnn_cli.published import published_name


def test_arrays_out_hold_the_clip_and_the_forecast(run, tiny, tmp_path):
    assert run("predict", DIGITS, "--weights", tiny, "-o", "z.npz", "--frames", 4, "--context", 5)[0] == 0
    frames = np.load(DIGITS)["frames"][:, None].astype(np.float32) / 255
    with np.load(tmp_path / "z.npz") as z:
        np.testing.assert_array_equal(z["context"], frames[:5])
        np.testing.assert_array_equal(z["truth"], frames[5:9])
        assert z["prediction"].shape == (4, 1, 64, 64)
        assert z["prediction"].dtype == np.float32
        assert float(z["fps"]) == 10
        np.testing.assert_array_equal(z["prediction"], predict(DIGITS, frames=4, context=5, weights=tiny).prediction)


def test_forecast_is_the_rollout_of_the_model(run, tiny, tmp_path):
    assert run("predict", DIGITS, "--weights", tiny, "-o", "z.npz", "--from-end", "--frames", 3)[0] == 0
    frames = torch.from_numpy(np.load(DIGITS)["frames"][-3:].astype(np.float32) / 255)[:, None, None]
    with torch.inference_mode():
        expected = torch.stack(list(rollout(load_model(tiny), frames, 3)))[2:, 0].numpy()
    with np.load(tmp_path / "z.npz") as z:
        np.testing.assert_array_equal(z["prediction"], expected)
        assert "truth" not in z


def test_published_checkpoint_from_end(run, tiny, tmp_path):
    model = load_model(tiny)
    state = {"module." + published_name(name, "B"): t for name, t in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}, "scheduler": {}}, tmp_path / "y.pth")
    arguments = ("predict", DIGITS, "--from-end", "--frames", 3, "--context", 3)
    assert run(*arguments, "--weights", "y.pth", "-o", "a.npz")[0] == 0
    assert run(*arguments, "--weights", tiny, "-o", "b.npz")[0] == 0
    a, b = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
    np.testing.assert_array_equal(a["prediction"], b["prediction"])


def test_truth_of_a_clip_that_ends_early(run, tiny, tmp_path):
    assert run("predict", DIGITS, "--weights", tiny, "-o", "o.npz", "--context", 18, "--frames", 6)[0] == 0
    with np.load(tmp_path / "o.npz") as z:
        assert (len(z["prediction"]), len(z["truth"])) == (6, 2)


def test_size_and_fps(run, tiny, tmp_path):
    assert run("predict", CLIP, "--weights", tiny, "--size", "40x24", "--fps", 5, "-o", "o.npz")[0] == 0
    with np.load(tmp_path / "o.npz") as z:
        assert z["prediction"].shape[1:] == (1, 24, 40)
        assert float(z["fps"]) == 5


def test_same_result_for_any_number_of_threads(run, tiny, tmp_path):
    for threads in (1, 2):
        assert run("predict", DIGITS, "--weights", tiny, "-o", f"{threads}.npz", "--threads", threads)[0] == 0
    one, two = (np.load(tmp_path / f"{n}.npz")["prediction"] for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_from_python(tiny):
    forecast = predict(DIGITS, weights=tiny, frames=np.int64(2), context=np.int64(3), size=np.int64(32))
    assert forecast.prediction.shape == (2, 1, 32, 32)
    assert predict(DIGITS, weights=tiny, frames=1, size=np.array([16, 24])).prediction.shape == (1, 1, 16, 24)
    with np.load(DIGITS) as arrays:
        frames = arrays[arrays.files[0]]
    np.testing.assert_array_equal(predict(frames, frames=2).prediction, predict(DIGITS, frames=2).prediction)
    with pytest.raises(InputError, match=r"the array is shaped \(20,\)"):
        predict(np.zeros(20), weights=tiny)
    with pytest.raises(InputError, match="a list is no source"):
        predict([1], weights=tiny)
    with pytest.raises(InputError, match="makes no forecast"):
        predict(DIGITS, weights=tiny, frames=2.5)


def test_frames_that_are_not_needed_are_not_looked_at(run, tiny, tmp_path):
    frames = np.full((9, 16, 16), 0.5, np.float32)
    frames[5] = np.inf  # 3 given, 2 predicted
    np.save(tmp_path / "x.npy", frames)
    assert run("predict", "x.npy", "--weights", tiny, "-o", "o.gif")[0] == 0
    code, _, err = run("predict", "x.npy", "--weights", tiny, "-o", "p.gif", "--frames", 3)
    assert code == 2
    assert "frame 5, holds infinite" in one_error_line(err)


def test_seconds_are_told_where_they_are_known(run, tiny, tmp_path):
    assert not predict(DIGITS, weights=tiny).has_clock
    assert predict(DIGITS, weights=tiny, fps=25).has_clock
    assert predict(CLIP, weights=tiny).has_clock


def test_arrays_of_either_byte_order(run, tiny, tmp_path):
    frames = np.random.default_rng(0).random((5, 16, 16), np.float32)
    for name, kind in (("little", "<f4"), ("big", ">f4")):
        np.save(tmp_path / f"{name}.npy", frames.astype(kind))
        assert run("predict", f"{name}.npy", "--weights", tiny, "-o", f"{name}.npz")[0] == 0
    little, big = (np.load(tmp_path / f"{name}.npz")["prediction"] for name in ("little", "big"))
    np.testing.assert_array_equal(little, big)


# ---- grids in units of their own


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """Random weights for grids of two channels, 2 -> 2, trained on counts up to 100."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("counting")
    shape = {"image_channels": 2, "image_size": (8, 8), "context": 2, "horizon": 2, "divided_by": 100.0}
    save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), patch_size=2, **shape)), folder, half=False)
    return folder


def counts(*levels):
    """A frame for each level, which is the highest value in it."""
    shares = np.random.default_rng(0).random((len(levels), 2, 8, 8), np.float32)
    return shares / shares.max((1, 2, 3), keepdims=True) * np.float32(levels)[:, None, None, None]


@pytest.mark.parametrize("levels", [(90, 80, 70, 150), (90, 150, 70, 80)], ids=["truth", "given"])
def test_what_exceeds_the_divisor_is_scored_and_written_as_it_is(run, counting, tmp_path, levels):
    frames = counts(*levels)
    np.save(tmp_path / "grid.npy", frames)
    code, out, _ = run("predict", "grid.npy", "--weights", counting, "-o", "o.npz", "--json")
    result = json.loads(out)
    assert (code, result["divided_by"]) == (0, 100)
    with np.load(tmp_path / "o.npz") as written:
        np.testing.assert_allclose(written["context"], frames[:2], rtol=1e-6)
        np.testing.assert_allclose(written["truth"], frames[2:], rtol=1e-6)
        prediction = written["prediction"].astype(np.float64)
    error, repeated = (np.square((guess - frames[2:]) / 100).sum((1, 2, 3)) for guess in (prediction, frames[1:2]))
    assert result["metrics"]["mse"] == pytest.approx(error.mean(), rel=1e-5)
    assert result["baseline_last_frame"]["mse"] == pytest.approx(repeated.mean(), rel=1e-5)
    # What `eval` feeds and scores is the same.
    arguments = ["--data", "grid.npy", "--dataset", "grid", "--split", "all", "--weights", counting]
    code, out, err = run("eval", *arguments, "--json")
    scores = json.loads(out)
    assert (code, scores["clips"], scores["divided_by"]) == (0, 1, 100), err
    np.testing.assert_allclose(scores["per_frame"]["mse"], error, rtol=1e-5)
    np.testing.assert_allclose(scores["baseline_last_frame"]["per_frame"]["mse"], repeated, rtol=1e-5)


def test_the_network_sees_at_most_what_training_had_and_that_is_said(run, counting, tmp_path):
    frames = counts(90, 150, 70, 80)
    np.save(tmp_path / "grid.npy", frames)
    cut = np.minimum(frames, 100)
    over, under = (predict(clip, weights=counting) for clip in (frames, cut))
    np.testing.assert_array_equal(over.prediction, under.prediction)
    assert (over.clipped_at, under.clipped_at) == (pytest.approx(1.5), None)
    code, _, err = run("predict", "grid.npy", "--weights", counting, "-o", "o.png")
    (line,) = (line for line in err.splitlines() if line.startswith("warning"))
    assert (code, "grid.npy: given values go up to 150, in training up to 100" in line) == (0, True)
    arguments = ["--data", "grid.npy", "--dataset", "grid", "--split", "all", "--weights", counting]
    assert "in 1 clips, given values exceed 100" in run("eval", *arguments)[2]
    np.save(tmp_path / "grid.npy", cut)
    assert "warning" not in run("predict", "grid.npy", "--weights", counting, "-o", "p.png")[2]
    assert "warning" not in run("eval", *arguments)[2]


def test_weights_without_units_take_no_counts(run, tiny, tmp_path):
    np.save(tmp_path / "grid.npy", counts(90, 80, 70, 60, 50)[:, :1])
    for command in (["predict", "grid.npy"], ["eval", "--data", "grid.npy", "--dataset", "grid", "--split", "all"]):
        code, _, err = run(*command, "--weights", tiny)
        assert code == 2
        assert "say what is black and white with --range LO,HI" in one_error_line(err)


def test_a_clip_is_looked_at_once(run, tmp_path, monkeypatch):
    """Though it says itself which weights fit it."""
    probes, probe = [], video._probe
    monkeypatch.setattr(video, "_probe", lambda *arguments: probes.append(arguments) or probe(*arguments))
    code, out, _ = run("predict", CLIP, "--context", 1, "--frames", 1, "-o", "o.npz", "--json")
    assert (code, json.loads(out)["weights"], len(probes)) == (0, "vmrnn-d-mmnist-small", 1)


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """Weights of a small network that carries the picture on, trained for 32 pixels, 4 -> 3 frames."""
    folder = tmp_path_factory.mktemp("motion")
    torch.manual_seed(0)
    config = MotionConfig((32, 32), 16, (1, 1), 2, detail_dim=8, decoder_dim=8, context=4, horizon=3)
    network = MotionVMRNN(config)
    torch.nn.init.normal_(network.decide.weight, std=0.1)
    save_model(network, folder, half=False)
    return folder


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A clip in colour, 96x64: a red square moves over green noise."""
    path = tmp_path_factory.mktemp("clip") / "street.mp4"
    ground = np.random.default_rng(0).integers(40, 120, (64, 96, 1), np.uint8) * np.uint8([0, 1, 0])
    with video.write_video(path, fps=10, overwrite=False) as writer:
        for t in range(12):
            frame = ground.copy()
            frame[20:40, 10 + 3 * t : 30 + 3 * t] = (200, 30, 30)
            writer.write(frame)
    return path


def test_the_picture_is_carried_on_in_its_own_size_and_colour(run, motion, street):
    forecast = predict(street, weights=motion)
    assert forecast.prediction.shape == forecast.truth.shape == (3, 3, 64, 96)
    assert forecast.context.shape == (4, 3, 64, 96)
    assert forecast.scored_on == (1, 32, 48)
    red, green, _ = forecast.prediction[0][:, 25:35, 30:40].mean((1, 2))
    assert red > 0.5 > 2 * green
    gray = predict(street, weights=motion, gray=True)
    assert gray.prediction.shape == (3, 1, 64, 96)
    assert predict(street, weights=motion, size=32).prediction.shape == (3, 3, 32, 48)
    own = predict(street, weights=motion, size=32, gray=True, whole=False)
    assert own.prediction.shape == (3, 1, 32, 48)
    # Scores are those of the network's own picture, however it is shown.
    assert own.metrics == pytest.approx(forecast.metrics, rel=1e-6) == gray.metrics
    assert own.metrics["mse"] == pytest.approx(
        np.square(own.prediction.astype(np.float64) - own.truth).sum((1, 2, 3)).mean(), rel=1e-6
    )
    assert own.baseline_motion["mse"] == pytest.approx(forecast.baseline_motion["mse"], rel=1e-6)
    assert forecast.baseline_motion["mse"] < forecast.baseline_last_frame["mse"]


def test_large_pictures_shrink_to_their_panels(run, motion, tmp_path):
    with video.write_video(tmp_path / "large.mp4", fps=10, overwrite=False) as writer:
        for t in range(8):
            writer.write(np.full((360, 1280, 3), 20 * t, np.uint8))
    assert run("predict", "large.mp4", "--weights", motion, "-o", "o.gif")[0] == 0
    with video.open_clip(tmp_path / "o.gif", channels=3) as film:
        assert film.frame_shape[2] <= 1920
    assert run("predict", "large.mp4", "--weights", motion, "-o", "o.npz")[0] == 0
    with np.load(tmp_path / "o.npz") as arrays:
        assert arrays["prediction"].shape == (3, 3, 360, 1280)


def test_motion_and_weights_have_panels(run, motion, tiny, street, tmp_path):
    panels = ("--panels", "prediction,motion,weights")
    assert run("predict", street, "--weights", motion, *panels, "-o", "o.npz")[0] == 0
    with np.load(tmp_path / "o.npz") as arrays:
        assert arrays["motion"].shape == arrays["weights"].shape == (3, 3, 16, 24)
        assert arrays["motion"].max() > 0.3  # something moves
        assert arrays["weights"].min() >= 0 and arrays["weights"].max() <= 1
    code, _, err = run("predict", street, "--weights", tiny, *panels, "-o", "p.png")
    assert code == 2
    assert "nothing to show as motion" in one_error_line(err)


def test_one_given_frame_is_enough_and_grids_have_any_channels(motion):
    frames = np.random.default_rng(0).random((6, 2, 9, 7), np.float32)
    forecast = predict(frames, weights=motion, context=1, frames=5)
    assert forecast.prediction.shape == (5, 2, 9, 7)
    np.testing.assert_allclose(forecast.prediction[0], frames[0], atol=0.3)


def test_frames_are_the_same_however_many_are_asked_for(motion, street):
    few, many = (predict(street, weights=motion, frames=frames).prediction for frames in (3, 20))
    np.testing.assert_allclose(few, many[:3], atol=1e-5)


# ---- what is declared, and what is missing


def test_missing_values_are_filled_for_networks_and_left_out_of_scores(run, tiny, tmp_path):
    frames = np.random.default_rng(0).random((5, 16, 16), np.float32)
    gaps = frames.copy()
    gaps[1, 2, 3] = gaps[4, 5, 6] = np.nan  # given, and of the truth
    filled = gaps.copy()
    filled[1, 2, 3], filled[4, 5, 6] = frames[0, 2, 3], frames[3, 5, 6]
    forecast, known = predict(gaps, weights=tiny), predict(filled, weights=tiny)
    np.testing.assert_array_equal(forecast.prediction, known.prediction)
    np.testing.assert_array_equal(forecast.context, known.context)
    np.testing.assert_array_equal(forecast.truth, known.truth)
    assert (forecast.missing.count, forecast.missing.total) == (2, 5 * 16 * 16)
    left_out = np.square(known.prediction[1, 0, 5, 6].astype(np.float64) - filled[4, 5, 6]) / 2
    assert forecast.metrics["mse"] == pytest.approx(known.metrics["mse"] - left_out, rel=1e-6)
    masked = np.ma.array(np.nan_to_num(gaps, nan=7), mask=np.isnan(gaps))
    np.testing.assert_array_equal(predict(masked, weights=tiny).prediction, known.prediction)
    np.save(tmp_path / "x.npy", np.nan_to_num(gaps, nan=-9999))
    code, out, err = run("predict", "x.npy", "--missing", "-9999", "--weights", tiny, "-o", "o.npz", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["notes"] == [
        "x.npy: 2 values (0.2%) are missing: filled with the last known ones, left out of scores"
    ]
    with np.load(tmp_path / "o.npz") as written:
        assert all(np.isfinite(written[name]).all() for name in written.files)
    with pytest.raises(InputError, match="NaN or other missing values only"):
        predict(np.full((5, 16, 16), np.nan), weights=tiny)


def test_a_declared_range_and_layout(tiny, tmp_path):
    shares = np.random.default_rng(0).random((5, 16, 16))
    levels = np.rint(shares * 200 - 100).astype(np.int16)  # from -100 to 100
    forecast = predict(levels.transpose(1, 2, 0), weights=tiny, layout="HWT", range=(-100, 100))
    expected = predict((levels + 100) / 200, weights=tiny)
    np.testing.assert_allclose(forecast.prediction, expected.prediction, atol=1e-6)
    forecast.save(tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as written:  # in units of its own
        np.testing.assert_allclose(written["context"][:, 0], levels[:3], atol=1e-4)
        np.testing.assert_allclose(written["prediction"], expected.prediction * 200 - 100, atol=1e-3)
    with pytest.raises(InputError, match="pictures, which --range says nothing about"):
        predict(CLIP, weights=tiny, range=(0, 100))


def test_an_archive_knows_its_rate(tiny, tmp_path):
    np.savez(tmp_path / "x.npz", frames=np.zeros((5, 16, 16), np.uint8), fps=25.0)
    forecast = predict(tmp_path / "x.npz", weights=tiny)
    assert (forecast.fps, forecast.has_clock) == (25, True)
    assert predict(tmp_path / "x.npz", weights=tiny, fps=5).fps == 5
    np.savez(tmp_path / "x.npz", frames=np.zeros((5, 16, 16), np.uint8), fps=0)
    with pytest.raises(InputError, match=r"x\.npz says fps=0"):
        predict(tmp_path / "x.npz", weights=tiny)
