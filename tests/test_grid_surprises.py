"""What files of grids surprise with: calendars, times as text, nothing in them, files that do not go together."""

from __future__ import annotations

import warnings

import cftime
import gridded
import h5netcdf
import numpy as np
import pandas
import pytest
import xarray as xr
from commands import one_error_line

from vmrnn_cli import predict

FEW = ("--context", 4, "--frames", 3, "--threads", 1)


def kelvin(scans=8, height=16, width=20, units="K"):
    values = (270 + 20 * gridded.blobs(scans, height, width)).astype("f4")
    return xr.DataArray(values, {"time": gridded.times(scans)}, ("time", "y", "x"), "t", {"units": units})


def written(path, times, units, calendar=None, **dimensions):
    """A file whose times are numbers in the given units."""
    sizes = {"time": len(times), "y": 16, "x": 20} | dimensions
    with h5netcdf.File(path, "w") as file:
        file.dimensions = sizes
        time = file.create_variable("time", ("time",), np.asarray(times).dtype, data=times)
        time.attrs["units"] = units
        if calendar:
            time.attrs["calendar"] = calendar
        values = kelvin(len(times)).values[:, : sizes["y"], : sizes["x"]]
        data = file.create_variable("t", ("time", "y", "x"), "f4", data=values)
        data.attrs["units"] = "K"
    return path


@pytest.fixture
def surprise(tmp_path):
    def make(what):
        path = tmp_path / "odd.nc"
        data = kelvin()
        if what == "no scans":
            with h5netcdf.File(path, "w") as file:
                file.dimensions = {"time": None, "y": 4, "x": 4}
                file.create_variable("time", ("time",), "i4").attrs["units"] = "hours since 2000-01-01"
                file.create_variable("t", ("time", "y", "x"), "f4")
        elif what == "no places":
            written(path, np.arange(8), "hours since 2000-01-01", y=0)
        elif what == "months":
            written(path, np.arange(8), "months since 2000-01-01")
        elif what == "words":
            data.assign_coords(time=[f"scan {n}" for n in range(8)]).to_netcdf(path, engine="h5netcdf")
        elif what == "one row":
            data[:, :1].to_netcdf(path, engine="h5netcdf")
        elif what == "a time is missing":
            data.assign_coords(time=np.r_[data.time.values[:7], np.datetime64("NaT", "ns")]).to_netcdf(
                path, engine="h5netcdf"
            )
        elif what == "text":
            path.write_text("hello")
        elif what == "empty":
            path.touch()
        elif what == "empty store":
            path = tmp_path / "odd.zarr"
            path.mkdir()
        else:
            path = tmp_path / "odd"
            path.mkdir()
            data[:4].to_netcdf(path / "a.nc", engine="h5netcdf")
            other = data[4:].rename("other") if what == "variables" else data[4:].assign_attrs(units="degC")
            other.to_netcdf(path / "b.nc", engine="h5netcdf")
        return path

    return make


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no scans", "odd.nc holds no scans — give a longer series"),
        ("no places", "odd.nc: t (time 8, y 0, x 20) has no places"),
        ("months", "odd.nc has times in 'months since 2000-01-01', which say no time in their calendar"),
        ("words", "odd.nc: time is text that says no date"),
        ("one row", "are smaller than a patch of the model — give a larger grid"),
        ("a time is missing", "odd.nc has scans without a time"),
        ("text", "odd.nc is no NetCDF, HDF5 or Zarr by its content — get it whole"),
        ("empty", "odd.nc is no NetCDF, HDF5 or Zarr by its content — get it whole"),
        ("empty store", "odd.zarr is no NetCDF, HDF5 or Zarr by its content — get it whole"),
        ("variables", "b.nc has no variable 't', which "),
        ("units", "b.nc is in 'degC', and "),
    ],
)
def test_each_gets_one_line(run, tmp_path, surprise, what, said):
    path = surprise(what)
    before = set(tmp_path.iterdir())
    code, _, err = run("predict", path.name, "-o", "next.nc", *FEW)
    assert code == 2, err
    assert said in one_error_line(err)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "cache"}  # and nothing is left behind


def test_months_of_thirty_days_go_on(run, tmp_path):
    written(tmp_path / "model.nc", 30.0 * np.arange(8) + 15, "days since 2000-01-01", "360_day")
    code, _, err = run("predict", "model.nc", "--from-end", "-o", "next.nc", *FEW)
    assert code == 0, err
    made = xr.open_dataset("next.nc")
    assert made.time.values.tolist() == [cftime.Datetime360Day(2000, month, 16) for month in (9, 10, 11)]
    assert made.time.encoding["calendar"] == "360_day"


def test_times_with_fractions_of_days_stay_exact(run, tmp_path):
    written(tmp_path / "rain.nc", np.arange(8) / 288 + 0.1, "days since 2000-01-01 00:00:00")
    assert run("predict", "rain.nc", "--from-end", "-o", "next.nc", *FEW)[0] == 0
    made = xr.open_dataset("next.nc")
    assert (made.time.values == np.datetime64("2000-01-01T03:04", "ns") + gridded.STEP * np.arange(3)).all()


def test_times_as_text_are_dates(run, tmp_path):
    days = [f"2024-01-{day:02}" for day in range(1, 9)]
    kelvin().assign_coords(time=days).to_netcdf(tmp_path / "text.nc", engine="h5netcdf")
    code, _, err = run("predict", "text.nc", "--from-end", "-o", "next.nc", *FEW)
    assert code == 0, err
    made = xr.open_dataset("next.nc").time.values
    assert [str(time)[:10] for time in made] == ["2024-01-09", "2024-01-10", "2024-01-11"]


def test_what_is_filled_in_64_bits_stays_so(run, tmp_path):
    fill = np.int64(-(2**63))
    data = kelvin()
    data[:, :3] = np.nan
    data.encoding = {"dtype": "int64", "_FillValue": fill}
    data.to_netcdf(tmp_path / "big.nc", engine="h5netcdf")
    assert run("predict", "big.nc", "-o", "next.nc", *FEW)[0] == 0
    made = xr.open_dataset("next.nc").t
    assert (made.encoding["dtype"], made.encoding["_FillValue"]) == (np.dtype(np.int64), fill)
    assert np.isnan(made[:, :3]).all()
    assert ((made[:, 3:] >= 268) & (made[:, 3:] <= 292)).all()


def test_masks_come_out_as_masks(run, tmp_path):
    (kelvin() > 275).to_netcdf(tmp_path / "mask.nc", engine="h5netcdf")
    assert run("predict", "mask.nc", "-o", "next.nc", *FEW)[0] == 0
    made = xr.open_dataset("next.nc").t
    assert made.dtype == bool
    truth = (kelvin() > 275).values[4:7]
    assert (made.values == truth).mean() > 0.9  # and not True wherever anything is left


@pytest.mark.parametrize("dims", [("nj", "ni"), ("foo", "bar")])
def test_places_of_a_curved_grid_come_along(run, tmp_path, dims):
    rng = np.random.default_rng(0)
    data = kelvin().rename(y=dims[0], x=dims[1])
    for name, units in (("lat", "degrees_north"), ("lon", "degrees_east")):
        data = data.assign_coords({name: (dims, rng.random((16, 20)), {"units": units})})
    data.to_netcdf(tmp_path / "curved.nc", engine="h5netcdf")
    code, _, err = run("predict", "curved.nc", "-o", "next.nc", *FEW)
    assert code == 0, err
    made = xr.open_dataset("next.nc")
    assert made.t.dims == ("time", *dims)
    for name in ("lat", "lon"):
        xr.testing.assert_identical(made[name].variable, data[name].variable)
        assert name in made.t.coords
    assert run("predict", "curved.nc", "-o", "next.png", *FEW)[0] == 0


def test_words_beside_the_values_do_no_harm(run, tmp_path):
    data = kelvin().to_dataset()
    data["station"] = ("y", [f"s{row}" for row in range(16)])
    data["flag"] = ("time", list("abcdefgh"))
    data["title"] = ((), "hello")
    data.to_netcdf(tmp_path / "words.nc", engine="h5netcdf")
    code, _, err = run("predict", "words.nc", "-o", "next.nc", *FEW)
    assert code == 0, err
    made = xr.open_dataset("next.nc")
    assert made.station.values.tolist() == data.station.values.tolist()
    assert made.title.item() == "hello"
    assert "flag" not in made  # of the given scans, which nobody can forecast


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_keeps_its_chunks_and_version(run, tmp_path, version):
    data = kelvin(12).to_dataset()
    data.to_zarr(tmp_path / "in.zarr", zarr_format=version, consolidated=False, encoding={"t": {"chunks": (5, 8, 8)}})
    code, _, err = run("predict", "in.zarr", "-o", "next.zarr", *FEW)
    assert code == 0, err
    assert xr.open_zarr(tmp_path / "next.zarr").t.encoding["chunks"] == (3, 8, 8)  # three scans are all there are


def test_a_damaged_chunk_is_told(run, tmp_path):
    kelvin(12).to_dataset().to_zarr(tmp_path / "in.zarr", consolidated=False)
    for chunk in (tmp_path / "in.zarr" / "t").rglob("*"):
        if chunk.is_file() and not chunk.name.startswith((".z", "zarr")):
            chunk.write_bytes(chunk.read_bytes()[:10])
    code, _, err = run("predict", "in.zarr", "-o", "next.zarr", *FEW)
    assert code == 2
    assert "damaged, or half written" in one_error_line(err)
    assert not (tmp_path / "next.zarr").exists()


def test_indices_of_several_levels_come_back():
    data = kelvin().assign_coords(a=("y", list("ab") * 8), b=("y", range(16))).set_index(y=["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = predict(data, context=4, frames=2)
    assert isinstance(made.indexes["y"], pandas.MultiIndex)
    assert made.indexes["y"].equals(data.indexes["y"])
