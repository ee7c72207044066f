"""Which bundled weights a grid gets: by its units. A weights folder and an entry in the registry are all it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gridded
import numpy as np
import pytest
import xarray as xr
from commands import one_error_line

from vmrnn_cli import predict, weights
from vmrnn_cli.networks import CONFIG_NAME

SCENE = Path(__file__).parent.parent / "examples" / "scene.mp4"
FEW = ("--context", 4, "--frames", 2, "--threads", 1)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """The bundled weights; those for radar know a range that is not what is usual."""
    shelf = tmp_path / "shelf"
    shutil.copytree(weights.bundled_folder(), shelf)
    path = shelf / "vmrnn-d-radar" / CONFIG_NAME
    config = json.loads(path.read_text())
    assert (config["units"], config["range"], config["transform"]) == ("dBZ", [0, 70], "none")
    path.write_text(json.dumps(config | {"range": [0, 75]}))
    monkeypatch.setattr(weights, "bundled_folder", lambda: shelf)
    return shelf


def series(units, scans=8, levels=None):
    frames = gridded.blobs(scans, 24, 24) * 40
    coordinates = {"time": gridded.times(scans)}
    dims = ("time", "y", "x")
    if levels:
        frames, dims = np.stack([frames] * levels, 1), ("time", "level", "y", "x")
    return xr.DataArray(frames.astype("f4"), coordinates, dims, "v", {"units": units})


@pytest.mark.parametrize(
    ("units", "levels", "picked"),
    [
        ("dBZ", None, "vmrnn-d-radar"),
        ("mm h-1", None, "vmrnn-d-radar"),
        ("mm/hr", 3, "vmrnn-d-radar"),
        ("kg m-2", None, "vmrnn-d-radar"),
        ("K", None, "vmrnn-d-motion"),
        ("", None, "vmrnn-d-motion"),
        ("bikes/h", 2, "vmrnn-b-bikenyc"),
        ("bikes/h", None, "vmrnn-d-motion"),
    ],
)
@pytest.mark.usefixtures("shelf")
def test_units_pick_the_weights(run, tmp_path, units, levels, picked):
    data = series(units, levels=levels)
    data.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    code, _, err = run("predict", "v.nc", "-o", "next.nc", *FEW)
    assert code == 0, err
    assert sum(line.startswith(f"{picked} (") for line in err.splitlines()) == 1, err
    assert f"forecast with {picked} from" in xr.open_dataset("next.nc").attrs["history"]
    if levels is None:
        code, out, err = run("eval", "--data", "v.nc", "--json", "--limit", 1, *FEW)
        assert json.loads(out)["weights"] == picked, err


@pytest.mark.usefixtures("shelf")
def test_arrays_of_xarray_get_them_and_footage_does_not(run, tmp_path):
    ranges = {}
    for units in ("dBZ", "K"):
        made = predict(series(units), context=4, frames=2, threads=1)
        ranges[units] = list(made.attrs["vmrnn_range"])
    assert ranges["dBZ"] == [0, 75]  # as those weights have seen it
    assert ranges["K"][1] < 75
    code, out, err = run("predict", SCENE, "-o", "next.npz", "--json", *FEW)
    assert json.loads(out)["weights"] == "vmrnn-d-motion", err
    np.save(tmp_path / "gray.npy", np.rint(series("").values * 6).astype("u1"))
    code, out, err = run("predict", "gray.npy", "-o", "gray.npz", "--json", *FEW)
    assert json.loads(out)["weights"] == "vmrnn-d-motion", err


@pytest.mark.usefixtures("shelf")
def test_weights_that_are_named_want_their_units(run, tmp_path):
    series("K").to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    code, _, err = run("predict", "t.nc", "-o", "next.nc", "--weights", "vmrnn-d-radar", *FEW)
    assert code == 2
    assert "vmrnn-d-radar is for grids in dBZ, mm/h, mm, mm/s, got one in K" in one_error_line(err)
    series("mm").to_netcdf(tmp_path / "mm.nc", engine="h5netcdf")
    code, out, err = run("predict", "mm.nc", "-o", "next.nc", "--weights", "vmrnn-d-radar", "--json", *FEW)
    assert code == 0, err
    assert json.loads(out)["grid"]["transform"] == "dB"  # what is usual for mm, as these weights know dBZ


@pytest.mark.usefixtures("shelf")
def test_training_goes_on_from_them(run, tmp_path):
    series("dBZ", 20).to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    small = ("--context", 4, "--frames", 2, "--size", 16, "--steps", 1, "--batch-size", 1)
    code, _, err = run("train", "--data", "v.nc", *small, "--out", "run")
    assert code == 0, err
    assert "starting from vmrnn-d-radar" in err.splitlines()
    assert 'preset = "vmrnn-d-radar"' in (tmp_path / "run" / "config.toml").read_text()
    kept = json.loads((tmp_path / "run" / "best" / CONFIG_NAME).read_text())
    assert (kept["units"], kept["range"], kept["transform"]) == ("dBZ", [0, 75], "none")


@pytest.mark.usefixtures("shelf")
def test_they_are_listed(run):
    code, out, _ = run("weights", "list", "--json")
    assert code == 0
    assert json.loads(out)["vmrnn-d-radar"]["fits"]["units"] == ["dBZ", "mm/h", "mm", "mm/s"]
