"""Training on grids: what is held out, what weights keep of it, and that `predict` and `eval` use that."""

from __future__ import annotations

import json
from pathlib import Path

import gridded
import numpy as np
import pytest
import xarray as xr
from commands import one_error_line

from vmrnn_cli import data, weights
from vmrnn_cli.config import MotionConfig
from vmrnn_cli.data.grids import GridClips, are_events, open_series
from vmrnn_cli.errors import InputError
from vmrnn_cli.networks import config_from_dict, config_to_dict, read_config
from vmrnn_cli.readings import Declared

SMALL = ("--context", 4, "--frames", 2, "--size", 16, "--batch-size", 1, "--steps", 1)


def rates(path, scans=20, seed=0, units="mm h-1", top=20.0):
    """A file of rain rates; made-up dates, so that each seed is an event of its own."""
    rain = gridded.blobs(scans, 24, 32, seed) * top
    start = gridded.START + np.timedelta64(seed, "D")
    array = xr.DataArray(
        rain.astype("f4"), {"time": gridded.times(scans, start)}, ("time", "y", "x"), "rain", {"units": units}
    )
    path.parent.mkdir(exist_ok=True)
    array.to_netcdf(path, engine="h5netcdf")
    return rain


@pytest.fixture
def events(tmp_path):
    for seed in range(4):
        rates(tmp_path / "events" / f"day{seed}.nc", seed=seed)
    return tmp_path / "events"


def clips(path, split, declared=None, **options):
    return data.DataSource(path, declared=declared or Declared()).clips(split, context=4, horizon=2, **options)


@pytest.mark.parametrize(("holdout", "held"), [("", ["day3.nc"]), ("day1, day2.nc", ["day1.nc", "day2.nc"])])
def test_whole_events_are_held_out(events, holdout, held):
    train, val = (clips(events, split, holdout=holdout) for split in ("train", "val"))
    of = [{each.label(n).split()[0] for n in range(len(each))} for each in (train, val)]
    assert of == [{f"day{n}.nc" for n in range(4)} - set(held), set(held)]
    assert len(train) == (4 - len(held)) * 15  # from each scan on that six follow
    assert val.describe()[0].endswith(f"of {', '.join(name[:4] for name in held)}, held out of training")
    assert train.has_own_split
    assert val.has_own_split
    assert not clips(events, "test").has_own_split  # which is all of it, to be scored


def test_of_a_single_event_the_end_is_held_out(tmp_path):
    rates(tmp_path / "long.nc", scans=40)
    train, val = (clips(tmp_path / "long.nc", split) for split in ("train", "val"))
    assert [window.first for window in train._windows] == list(range(31))  # whose scans are the first 36
    assert [window.first for window in val._windows] == [32, 33, 34]  # which forecast the last four
    rates(tmp_path / "short.nc", scans=12)
    with pytest.raises(InputError, match=r"no 4 \+ 2 scans without a gap in 'val'"):
        clips(tmp_path / "short.nc", "val")


def test_days_between_gaps_are_events_by_their_dates(tmp_path):
    for seed in range(3):
        rates(tmp_path / f"{seed}.nc", scans=8, seed=seed)
    days = [xr.open_dataset(tmp_path / f"{seed}.nc") for seed in range(3)]
    xr.concat(days, "time").to_netcdf(tmp_path / "days.nc", engine="h5netcdf")
    val = clips(tmp_path / "days.nc", "val", holdout="2024-06-02 12:00")
    assert {val.label(n)[:18] for n in range(len(val))} == {"days.nc 2024-06-02"}
    with pytest.raises(InputError, match="no event 'day9' to hold out — choose from: days 2024-06-01 12:00, days"):
        clips(tmp_path / "days.nc", "val", holdout="day9")


def test_events_may_have_folders_of_scans(tmp_path):
    for seed in range(2):
        rates(tmp_path / f"all{seed}.nc", seed=seed)
        (tmp_path / "events" / f"day{seed}").mkdir(parents=True)
        for number, scan in enumerate(xr.open_dataset(tmp_path / f"all{seed}.nc").isel(time=slice(8)).rain):
            scan.to_netcdf(tmp_path / "events" / f"day{seed}" / f"{number}.nc", engine="h5netcdf")
    train, val = (clips(tmp_path / "events", split, holdout="day0") for split in ("train", "val"))
    assert [each.label(0)[:16] for each in (train, val)] == ["day1 2024-06-02 ", "day0 2024-06-01 "]
    with pytest.raises(InputError, match="every event is held out"):
        clips(tmp_path / "events", "train", holdout="day0,day1")


def test_training_clips_are_cut_mirrored_and_turned(events):
    train = clips(events, "train", crop=16, augment=True)
    assert train.clip_shape == (6, 1, 16, 16)
    whole = clips(events, "train")
    seen = {train.frames(0, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(seen) > 10
    frame = train.frames(0, np.random.default_rng(3))[0, 0]
    (full,) = whole.frames(0, np.random.default_rng(3))[0]
    parts = np.lib.stride_tricks.sliding_window_view(full, (16, 16)).reshape(-1, 16, 16)
    ways = [np.rot90(each, k) for each in (frame, frame.T) for k in range(4)]
    assert any((parts == way).all((1, 2)).any() for way in ways)
    again = [train.frames(5, np.random.default_rng(1)) for _ in range(2)]
    assert (again[0] == again[1]).all()
    val = clips(events, "val", crop=16)
    middle = clips(events, "val").frames(0, np.random.default_rng(0))[..., 4:20, 8:24]
    np.testing.assert_array_equal(val.frames(0, np.random.default_rng(7)), middle)


def test_the_range_is_that_of_the_training_scans_alone(tmp_path):
    for seed, top in enumerate((10.0, 20.0, 500.0)):
        rates(tmp_path / "sea" / f"{seed}.nc", seed=seed, units="m", top=top)
    train, val = (clips(tmp_path / "sea", split, holdout="2") for split in ("train", "val"))
    assert train.seen == val.seen
    assert 5 < train.seen["range"][1] <= 20
    assert train.frames(0, np.random.default_rng(0)).max() <= 1
    assert val.frames(0, np.random.default_rng(0)).max() > 1  # scored as it is


def test_folders_of_arrays_are_events(tmp_path):
    folder = tmp_path / "radar"
    folder.mkdir()
    for seed, shape in enumerate(((12, 24, 32), (10, 32, 24))):
        frames = np.rint(255 * gridded.blobs(*shape, seed)).astype("u1")
        np.savez(folder / f"event{seed}.npz", frames=frames)
    (folder / "raw").mkdir()
    (folder / "raw" / "notes.txt").touch()
    assert are_events(folder)
    train, val = (clips(folder, split, crop=64) for split in ("train", "val"))
    assert train.clip_shape == (6, 1, 24, 24)  # what both have
    assert {val.label(n).split()[0] for n in range(len(val))} == {"event1.npz"}
    every = clips(folder, "test")
    assert not every.one_shape
    np.testing.assert_array_equal(every.frames(0, np.random.default_rng(0))[:, 0], frames_of(folder / "event0.npz")[:6])
    (folder / "clip.mp4").touch()
    assert not are_events(folder)


def frames_of(path):
    return (np.load(path)["frames"] / 255).astype(np.float32)


def test_arrays_of_counts_tell_their_highest_value(tmp_path):
    folder = tmp_path / "counts"
    folder.mkdir()
    for seed, top in enumerate((40, 80, 800)):
        np.save(folder / f"{seed}.npy", np.rint(top * gridded.blobs(12, 16, 16, seed)).astype("f4"))
    train = clips(folder, "train", holdout="2")
    assert 20 < train.divided_by <= 80
    assert train.seen == {}


def test_weights_keep_what_they_saw(run, events, tmp_path):
    code, _, err = run("train", "--data", events, "--holdout", "day2", "--transform", "sqrt", "--range", "0,40", *SMALL,
                       "--out", "run")  # fmt: skip
    assert code == 0, err
    assert "starting from vmrnn-d-radar" in err.splitlines()
    assert "25% of the clips are weather: made up, it flows, grows and decays" in err.splitlines()
    kept = read_config(tmp_path / "run" / "best" / "config.json")
    assert (kept.units, kept.range, kept.transform) == ("mm h-1", (0.0, 40.0), "sqrt")
    assert 'holdout = "day2"' in (tmp_path / "run" / "config.toml").read_text()
    code, out, err = run("predict", events / "day2.nc", "--weights", "run/best", "-o", "next.nc", "--json")
    told = json.loads(out)
    assert (told["grid"]["range"], told["grid"]["transform"]) == ([0.0, 40.0], "sqrt")
    assert any("the network sees sqrt of 0 to 40 mm h-1, as in training" in note for note in told["notes"])
    assert xr.open_dataset("next.nc").rain.attrs["vmrnn_transform"] == "sqrt"
    code, out, err = run("eval", "--data", events, "--weights", "run/best", "--limit", 1, "--json")
    assert any("as in training" in note for note in json.loads(out)["notes"]), err
    code, out, _ = run("predict", events / "day2.nc", "--weights", "run/best", "-o", "o.nc", "--json", "--range", "0,9")
    assert json.loads(out)["grid"]["range"] == [0.0, 9.0]  # what is said always wins


def test_weights_for_one_unit_refuse_another(run, events, rain_in_dbz, tmp_path):
    code, _, err = run("train", "--data", events, *SMALL, "--out", "run")
    assert code == 0, err
    for command in (("predict", rain_in_dbz, "-o", "next.nc"), ("eval", "--data", rain_in_dbz)):
        code, _, err = run(*command, "--weights", "run/best")
        assert code == 2
        assert "run/best was trained on grids in mm h-1, got one in dBZ" in one_error_line(err)
    assert not (tmp_path / "next.nc").exists()
    assert run("predict", rain_in_dbz, "-o", "next.nc", "--weights", "run/best", "--range", "0,70")[0] == 0


@pytest.fixture
def rain_in_dbz(tmp_path):
    gridded.reflectivity(12).to_netcdf(tmp_path / "dbz.nc", engine="h5netcdf")
    return tmp_path / "dbz.nc"


def test_a_run_goes_on_with_the_events_it_had(run, events):
    begun = run("train", "--data", events, "--holdout", "day0", *SMALL, "--out", "run")
    assert begun[0] == 0, begun[2]
    code, _, err = run("train", "--resume", "--out", "run", "--steps", 2)
    assert code == 0, err
    code, _, err = run("train", "--resume", "--out", "run", "--steps", 3, "--holdout", "day1")
    assert code == 2
    assert "holdout was 'day0' and is 'day1'" in one_error_line(err)


def test_traffic_goes_on_from_its_own_weights(run, tmp_path):
    example = Path(__file__).parent.parent / "examples" / "traffic.nc"
    code, _, err = run("train", "--data", example, "--steps", 1, "--batch-size", 2, "--out", "run")
    assert code == 0, err
    assert "starting from vmrnn-b-bikenyc" in err.splitlines()
    kept, before = (read_config(folder / "config.json") for folder in (
        tmp_path / "run" / "best", weights.bundled_folder() / "vmrnn-b-bikenyc"))  # fmt: skip
    assert kept.divided_by == before.divided_by


def test_options_of_grids_are_refused_for_others(run, tmp_path):
    np.save(tmp_path / "clips.npy", np.zeros((40, 16, 16), np.uint8))
    for option, value in (("--transform", "log"), ("--variable", "rain"), ("--select", "level=1"), ("--holdout", "a")):
        code, _, err = run("train", "--data", "clips.npy", option, value, *SMALL)
        assert code == 2
        assert f"leave {option} out" in one_error_line(err)


def test_a_configuration_says_what_the_weights_saw():
    config = MotionConfig(units="dBZ", range=(0, 70.5), transform="none")
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    for bad in ({"range": [3]}, {"range": [3, 2]}, {"range": [0, float("inf")]}, {"transform": "cube"}, {"units": 3}):
        with pytest.raises((TypeError, ValueError)):
            config_from_dict({**config_to_dict(config), **bad})


def test_series_are_closed_when_another_is_read(events):
    """Folders of thousands of events are read: no more than one is open."""
    series = open_series(events)
    every = GridClips("events", series, 4, 2)
    for index in range(0, len(every), 5):
        every.frames(index, np.random.default_rng(0))
    assert sum(each._opened is not None for each in series) == 1
