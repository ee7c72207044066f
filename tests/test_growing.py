"""Grids that grow are watched: each scan once, in order, with the values that `predict` reads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
pytest.importorskip("zarr")

from gridded import STEP, reflectivity, write_odim

from vmrnn_cli.errors import InputError
from vmrnn_cli.grids.record import write_dataset
from vmrnn_cli.growing import GrowingGrid
from vmrnn_cli.metrics import mse
from vmrnn_cli.predictor import predict
from vmrnn_cli.readings import UNDECLARED

SCANS = 12
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Zarr's, of what is consolidated


def write(path, scans):
    """The first scans of a series, all at once."""
    write_dataset(reflectivity(SCANS).isel(time=scans), "dbz", path)


def append(path, scans):
    """More of them, as programs do that write for days."""
    if path.suffix == ".zarr":
        data = reflectivity(SCANS).isel(time=scans).drop_vars(["lat", "lon", "y", "x", "crs"])
        for name in data.variables:
            data[name].encoding = {}
        data.to_zarr(path, append_dim="time")
    else:
        whole = path.with_name("whole.nc")
        write(whole, slice(0, scans.stop))
        path.write_bytes(whole.read_bytes()[:9000])  # half of it
        event = threading.Event()
        event.wait(4.0)
        whole.replace(path)


class Watching:
    """The command in a process of its own."""

    def __init__(self, path, tiny, *options):
        command = [sys.executable, "-m", "vmrnn_cli", "watch", str(path), "--frames", "4", "--every", "4"]
        command += ["--weights", str(tiny), *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def lines(self, number):
        killed = threading.Timer(120, self.process.kill)  # so that what never comes fails
        killed.start()
        try:
            return [json.loads(self.process.stdout.readline()) for _ in range(number)]
        finally:
            killed.cancel()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        rest, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 130, errors
        return [json.loads(line) for line in rest.splitlines()], errors.splitlines()


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_each_scan_is_taken_once_as_it_comes(tiny, tmp_path, suffix):
    path = tmp_path / f"rain{suffix}"
    write(path, slice(0, 6))
    with Watching(path, tiny, "-o", tmp_path / "events") as watching:
        start, *told = watching.lines(7)
        append(path, slice(6, 8))
        told += watching.lines(2)
        append(path, slice(8, 9))
        told += watching.lines(1)
        rest, errors = watching.end()
    assert (start["fps"], start["size"]) == (pytest.approx(1 / 300), [40, 32])
    assert start["alarms_per_hour"] == pytest.approx(0.012)
    assert [line["frame"] for line in told] == list(range(9))
    assert [line["time"] for line in told] == [300 * n for n in range(9)]
    assert [line["valid_time"] for line in told[:2]] == ["2024-06-01 12:00", "2024-06-01 12:05"]
    assert (rest[-1]["why"], rest[-1]["frames"]) == ("interrupted", 9)
    again = [line for line in errors if "tried again" in line]
    assert len(again) == (suffix == ".nc"), errors  # which was half written two times
    assert not [line for line in errors if not line.startswith("warning: ")]
    forecast = predict(path, weights=tiny, context=4, frames=4)
    assert [told[4]["mse"]["1"]] == [pytest.approx(mse(forecast.prediction[0], truth_at(path, 4)), rel=1e-5)]


def truth_at(path, number):
    from vmrnn_cli.video import Source

    with Source(path).open(channels=None) as clip:
        return next(frame for n, frame in enumerate(clip) if n == number)


def test_scans_in_files_of_their_own_and_one_that_is_missing(tiny, tmp_path):
    dbz = np.nan_to_num(reflectivity(SCANS).dbz.values)
    stamps = reflectivity(SCANS).time.values

    def fall(number):
        write_odim(tmp_path / f"{number:03}.h5", dbz[number], stamps[number])

    for number in range(4):
        fall(number)
    with Watching(tmp_path, tiny) as watching:
        told = watching.lines(5)[1:]
        for number in (4, 6):  # 5 never comes
            fall(number)
        told += watching.lines(2)
        watching.end()
    assert [line["valid_time"][-5:] for line in told] == ["12:00", "12:05", "12:10", "12:15", "12:20", "12:30"]
    assert [line.get("gap") for line in told] == [None] * 5 + [300.0]


def grid(path, ended=None, said=None):
    return GrowingGrid(path, UNDECLARED, (said if said is not None else []).append, ended or threading.Event())


def test_what_may_be_half_written_is_read_twice(tmp_path):
    path, ended = tmp_path / "rain.zarr", threading.Event()
    write(path, slice(0, 6))
    growing = grid(path, ended)
    growing.scale_for(1.0)
    scans = iter(growing)
    first = [next(scans) for _ in range(6)]
    data = reflectivity(SCANS).isel(time=slice(6, 8)).drop_vars(["lat", "lon", "y", "x", "crs"])
    empty = data.copy(deep=True)
    empty.dbz[:] = np.nan
    for each in (data, empty):
        for name in each.variables:
            each[name].encoding = {}
    empty.to_zarr(path, append_dim="time")  # the times are there, and not yet the values
    threading.Timer(2.0, lambda: data.to_zarr(path, region={"time": slice(6, 8)})).start()
    more = [next(scans) for _ in range(2)]
    ended.set()
    assert next(scans, None) is None
    known = growing._scale.frame(reflectivity(SCANS).dbz.values[:8, None])
    for scan, frame in zip(first + more, known, strict=True):
        assert np.array_equal(np.isnan(scan.frame), np.isnan(frame))
        assert np.abs(np.nan_to_num(scan.frame - frame)).max() < 1e-3


def test_an_empty_store_is_waited_for_and_what_is_no_series_is_not(tmp_path):
    path, said = tmp_path / "rain.zarr", []
    write(path, slice(0, 1))
    threading.Timer(3.0, lambda: append(path, slice(1, 3))).start()
    growing = grid(path, said=said)
    assert growing.shape == (1, 32, 40)
    assert said == [f"{path} has too few scans yet: it is waited for"]
    broken = tmp_path / "rain.nc"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="damaged, or half written"):
        grid(broken)


def test_colours_are_those_of_maps(tmp_path):
    path = tmp_path / "rain.nc"
    write(path, slice(0, 4))
    growing = grid(path)
    growing.scale_for(1.0)
    picture = growing.paint(np.zeros((1, 32, 40), np.float32))
    assert picture.shape == (32, 40, 3)
    assert (picture == 255).all()  # dry
    assert growing.rate == pytest.approx(float(np.timedelta64(1, "s") / STEP))
