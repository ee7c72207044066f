"""Grids in and out: NetCDF, HDF5 and Zarr, opened again with xarray and compared with what was given."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import gridded
import numpy as np
import pytest
import xarray as xr
from commands import ROOT, one_error_line

from vmrnn_cli import predict
from vmrnn_cli.errors import InputError
from vmrnn_cli.grids.axes import find_axes
from vmrnn_cli.grids.series import GridClip, GridSeries, span_text
from vmrnn_cli.grids.values import TRANSFORMS, GridScale, find_scale, standard_units
from vmrnn_cli.readings import Declared

FEW = ("--context", 4, "--frames", 3, "--threads", 1)


@pytest.fixture
def rain(tmp_path):
    """A NetCDF file of twelve scans."""
    path = tmp_path / "rain.nc"
    gridded.reflectivity().to_netcdf(path, engine="h5netcdf")
    return path


# ---- Values


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_scale_goes_there_and_back(transform):
    scale = GridScale("mm/h", 0.5, 80, transform)
    values = np.linspace(0.5, 120, 200).reshape(1, 10, 20)
    frames = scale.frame(values)
    assert frames.dtype == np.float32
    assert frames[values <= 80].max() <= 1 < frames[values > 81].min()
    assert (np.diff(frames.ravel()) > 0).all()
    np.testing.assert_allclose(scale.values(frames)[frames > 0], values[frames > 0], rtol=1e-5)


def test_what_lies_below_a_scale_comes_back_as_what_stood_for_it():
    scale = GridScale("mm/h", 0.03, 1000, "dB")
    frames = scale.frame(np.array([[[0.0, 0.01, 0.03, 1.0, np.nan]]]))
    assert frames[0, 0, :3].tolist() == [0, 0, 0]
    assert np.isnan(frames[0, 0, 4])
    scale.floor = 0.0
    assert scale.values(frames)[0, 0, :3].tolist() == [0, 0, 0]
    assert scale.scored_floor == 0


@pytest.mark.parametrize(("low", "transform"), [(0, "dB"), (-1, "log"), (-1, "sqrt"), (5, "none"), (0, "cube")])
def test_scales_that_make_no_sense_are_refused(low, transform):
    with pytest.raises(InputError):
        GridScale("", low, 5, transform)


def test_units_are_known_however_they_are_spelled():
    assert {standard_units(units) for units in ("mm/h", "mm h-1", "mm hr^-1", "mm h**-1", "kg m-2 h-1")} == {"mm/h"}
    assert standard_units("dBz") == "dBZ"
    assert standard_units("K") == "K"


def test_a_range_is_found_by_what_is_declared_then_by_units_then_by_the_scans():
    def sample():
        return 270.0, 300.0

    assert (find_scale("f", "K", sample).low, find_scale("f", "K", sample).high) == (270, 300)
    assert find_scale("f", "dBZ", sample).high == 70
    assert find_scale("f", "mm h-1", sample).transform == "dB"
    assert find_scale("f", "mm h-1", sample, Declared(range=(0, 50))).transform == "none"
    assert find_scale("f", "bikes/h", sample, divided_by=267.0).high == 267
    assert find_scale("f", "", lambda: (0.2, 0.8)).high == 1
    assert find_scale("f", "K", lambda: (3.0, 3.0)).high == 4  # a constant field
    assert find_scale("f", "dBZ", sample, Declared(range=(0, 60))).note == ""


# ---- Axes


def dataset(dims, sizes, coords=None, name="v", **attributes):
    return xr.Dataset({name: (dims, np.zeros(sizes), attributes)}, coords or {})


def test_axes_are_found_by_attributes_before_names():
    coords = {
        "a": ("a", gridded.times(3)),
        "y": ("y", np.arange(4.0), {"axis": "X"}),
        "x": ("x", np.arange(5.0), {"axis": "Y"}),
    }
    axes = find_axes(dataset(("a", "y", "x"), (3, 4, 5), coords), "f")
    assert (axes.time, axes.y, axes.x) == ("a", "x", "y")


def test_axes_are_found_by_names_and_degrees():
    coords = {"north": ("north", np.arange(4.0), {"units": "degrees_north"}), "time": gridded.times(3)}
    axes = find_axes(dataset(("time", "member", "north", "lon"), (3, 2, 4, 5), coords), "f")
    assert (axes.time, axes.y, axes.x, axes.others) == ("time", "north", "lon", ("member",))


def test_dimensions_that_say_nothing_are_the_last_two():
    axes = find_axes(dataset(("time", "phony_1", "phony_2"), (3, 4, 5), {"time": gridded.times(3)}), "f")
    assert (axes.y, axes.x) == ("phony_1", "phony_2")


def test_several_variables_are_named():
    both = dataset(("time", "y", "x"), (3, 4, 5), {"time": gridded.times(3)}).assign(w=lambda d: d.v)
    with pytest.raises(InputError, match="several variables: v, w — choose one with --variable"):
        find_axes(both, "f")
    assert find_axes(both, "f", "w").variable == "w"
    with pytest.raises(InputError, match="no variable 'u'"):
        find_axes(both, "f", "u")


# ---- Series


def series(path, **declared):
    return GridSeries(path, Declared(**declared))


def test_scans_in_files_of_their_own_are_ordered_by_their_times(tmp_path):
    data = gridded.reflectivity(6)
    for number, name in zip(range(6), "fbdace", strict=True):
        data.isel(time=number).to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
    found = series(tmp_path)
    assert (found.times == data.time.values).all()
    assert any("not in the order of their times" in note for note in found.notes)
    for number in range(6):
        np.testing.assert_allclose(found.scan(number)[0], data.dbz.values[number], atol=0.006)


def test_duplicates_are_dropped_and_said(tmp_path):
    data = gridded.reflectivity(4)
    xr.concat([data, data.isel(time=[1, 3])], "time", data_vars="minimal").to_netcdf(
        tmp_path / "d.nc", engine="h5netcdf"
    )
    found = series(tmp_path / "d.nc")
    assert (found.times == data.time.values).all()
    assert any("2 scan(s) have the time of another" in note for note in found.notes)


def test_only_the_scans_that_are_needed_are_read(tmp_path, monkeypatch):
    frames = np.zeros((500, 8, 8), "u1")
    data = xr.Dataset({"v": (("time", "y", "x"), frames, {"units": "dBZ"})}, {"time": gridded.times(500)})
    data.to_netcdf(tmp_path / "long.nc", engine="h5netcdf")
    read = []
    scan = GridSeries.scan
    monkeypatch.setattr(GridSeries, "scan", lambda self, number: read.append(number) or scan(self, number))
    predict(tmp_path / "long.nc", context=3, frames=2, from_end=True)
    assert set(read) <= {0, 497, 498, 499}  # the first tells which weights fit


def test_a_series_ends_where_its_frames_do(rain):
    found = series(rain)
    assert found.before_end(4) == (8, 0)
    assert found.first_after(600) == 2
    with pytest.raises(InputError, match="nothing at 4000 s"):
        found.first_after(4000)


def with_gap(tmp_path):
    path = tmp_path / "gap.nc"
    gridded.reflectivity(12).isel(time=[0, 1, 4, 5, 6, 7, 8, 9]).to_netcdf(path, engine="h5netcdf")
    return path


def test_gaps_are_refused_or_interpolated(tmp_path):
    whole = gridded.reflectivity(12).dbz.values
    path = with_gap(tmp_path)
    with pytest.raises(InputError, match=r"2 scan\(s\) are missing after 2024-06-01 12:05 — pass --gaps interpolate"):
        predict(path, context=4, frames=2)
    found = series(path, gaps="interpolate")
    clip = GridClip(found, found.scale(), 0)
    frames = list(clip.frames())
    assert len(frames) == 10
    expected = found.scale().frame(whole[1] + (whole[4] - whole[1]) / 3)
    np.testing.assert_allclose(frames[2][0], expected, atol=2e-3)
    clip.take_given(frames[:4])
    assert [note for note in clip.notes() if "2 scan(s) are missing" in note and "interpolated" in note]
    assert [str(clip.time(n))[11:16] for n in (0, 1, 2, 3, 4, 11)] == [
        "12:00",
        "12:05",
        "12:10",
        "12:15",
        "12:20",
        "12:55",
    ]


def test_gaps_after_the_given_scans_are_no_fault(tmp_path):
    forecast = predict(with_gap(tmp_path), context=2, frames=3)
    assert forecast.score.frames == 1  # two of three are missing


def test_the_end_of_a_series_with_a_gap(tmp_path):
    path = with_gap(tmp_path)
    assert predict(path, context=6, frames=1, from_end=True).context.shape[0] == 6
    forecast = predict(path, context=8, frames=2, from_end=True, gaps="interpolate")
    assert len(forecast.context) == 8
    assert str(forecast.grid.time(8)) == "2024-06-01T12:50:00.000000000"


def test_scans_that_come_too_soon_are_refused(tmp_path):
    path = tmp_path / "odd.nc"
    data = gridded.reflectivity(8)
    data = data.assign_coords(time=np.r_[data.time.values[:5], data.time.values[4:7] + np.timedelta64(1, "m")])
    data.drop_vars("time_bnds").to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InputError, match="not evenly apart"):
        predict(path, context=7, frames=1)


def test_spans_are_told_as_people_say_them():
    assert [span_text(s) for s in (300, 7200, 86400, 90, 12)] == ["5 min", "2 h", "1 d", "1.5 min", "12 s"]


# ---- Out


def assert_carried_over(given, made, variable, time, last):
    """All but the values, and what tells of the forecast, is as it was."""
    assert made.sizes[time] == 3
    for name in given.variables:
        if name in (variable, time, "time_bnds"):
            continue
        xr.testing.assert_identical(given[name].variable, made[name].variable)
    for name in (variable, time):
        ours = {"vmrnn_range", "vmrnn_transform"}
        assert {k: v for k, v in made[name].attrs.items() if k not in ours} == given[name].attrs
        assert made[name].dims == given[name].dims
    for key in ("dtype", "scale_factor", "add_offset", "_FillValue"):
        assert made[variable].encoding.get(key) == given[variable].encoding.get(key), key
    assert {k: v for k, v in made.attrs.items() if k != "history"} == {
        "Conventions": "CF-1.8", **{k: v for k, v in given.attrs.items() if k != "history"}
    }  # fmt: skip
    assert given.attrs.get("history", "") in made.attrs["history"]
    step = given[time].values[1] - given[time].values[0]
    at = given[time].values[last]
    assert (made[time].values == at + step * np.arange(1, 4)).all()
    assert made["forecast_reference_time"].values == at
    assert (made["lead_time"].values == step * np.arange(1, 4)).all()


@pytest.mark.parametrize("suffix", [".nc", ".h5", ".zarr"])
def test_a_forecast_is_as_what_was_given(run, rain, tmp_path, suffix):
    given = xr.open_dataset(rain)
    source = tmp_path / f"rain{suffix}"
    if suffix == ".zarr":
        given.drop_encoding().assign(dbz=given.dbz).to_zarr(source, consolidated=True, zarr_format=2)
        given = xr.open_dataset(source)
    elif suffix == ".h5":
        source.write_bytes(rain.read_bytes())
    code, out, err = run("predict", source, "-o", f"next{suffix}", *FEW)
    assert code == 0, err
    made = xr.open_dataset(tmp_path / f"next{suffix}", engine="zarr" if suffix == ".zarr" else "h5netcdf")
    assert_carried_over(given, made, "dbz", "time", last=3)
    assert made.dbz.attrs["vmrnn_range"] == pytest.approx([0, 70])
    missing = np.isnan(made.dbz.values)
    assert missing[:, :4, :4].all()
    assert not missing[:, 4:].any()
    assert (made.time_bnds.values[:, 1] == made.time.values).all()
    assert (made.time_bnds.values[:, 0] == made.time.values - gridded.STEP).all()
    error, stay = (np.nanmean((each - given.dbz.values[4:7]) ** 2) for each in (made.dbz.values, given.dbz.values[3]))
    assert error < 0.5 * stay
    assert not list(tmp_path.glob(".vmrnn-*"))


def test_values_are_those_of_the_npz(run, rain, tmp_path):
    for name in ("next.nc", "next.npz"):
        assert run("predict", rain, "-o", name, *FEW)[0] == 0
    own = xr.open_dataset(tmp_path / "next.nc").dbz.values
    frames = np.load(tmp_path / "next.npz")["prediction"][:, 0]
    np.testing.assert_allclose(own[~np.isnan(own)], 70 * frames[~np.isnan(own)], atol=0.006)


def test_latitudes_that_descend_are_not_flipped(tmp_path):
    frames = gridded.blobs(6) * 70
    coords = {"time": gridded.times(6), "lat": np.linspace(60, 50, 32), "lon": np.linspace(0, 10, 40)}
    data = xr.DataArray(frames, coords, ("time", "lat", "lon"), "dbz", {"units": "dBZ"})
    down = predict(data, context=4, frames=2, match=False)
    up = predict(data.isel(lat=slice(None, None, -1)), context=4, frames=2, match=False)
    assert (down.lat.values == data.lat.values).all()
    assert (up.lat.values == data.lat.values[::-1]).all()
    xr.testing.assert_allclose(down, up.isel(lat=slice(None, None, -1)), atol=2.0)  # the same but for rounding


def test_a_zarr_store_is_replaced_only_when_asked_and_nothing_else_is(run, rain, tmp_path):
    assert run("predict", rain, "-o", "next.zarr", *FEW)[0] == 0
    code, _, err = run("predict", rain, "-o", "next.zarr", *FEW)
    assert code == 2
    assert "already exists — pass --overwrite" in one_error_line(err)
    assert run("predict", rain, "-o", "next.zarr", "--overwrite", "--from-end", *FEW)[0] == 0
    made = xr.open_dataset(tmp_path / "next.zarr", engine="zarr")
    assert made.forecast_reference_time.values == xr.open_dataset(rain).time.values[-1]
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "letter.txt").write_text("keep")
    code, _, err = run("predict", rain, "-o", "mine.zarr", "--overwrite", *FEW)
    assert code == 2
    assert (tmp_path / "mine.zarr" / "letter.txt").read_text() == "keep"


def test_values_beyond_the_packing_stay_at_its_end(tmp_path):
    from vmrnn_cli.grids.record import write_dataset

    data = xr.Dataset(
        {"v": (("time", "y", "x"), np.array([[[-99.0, 500.0, 3.2, np.nan]]]))}, {"time": gridded.times(1)}
    )
    data.v.encoding = {"dtype": "uint8", "scale_factor": 0.5, "add_offset": -32.0, "_FillValue": np.uint8(255)}
    write_dataset(data, "v", tmp_path / "p.nc")
    assert xr.open_dataset(tmp_path / "p.nc").v.values[0, 0, :3].tolist() == [-32, 95, 3]
    assert np.isnan(xr.open_dataset(tmp_path / "p.nc").v.values[0, 0, 3])


# ---- Slices and missing values


def levels():
    frames = np.stack([gridded.blobs(6), gridded.blobs(6, seed=1)], 1).astype("f4") * 60
    coords = {"time": gridded.times(6), "level": ("level", [850, 500], {"units": "hPa"})}
    return xr.DataArray(frames, coords, ("time", "level", "y", "x"), "dbz", {"units": "dBZ"})


def test_levels_are_forecast_one_by_one_or_selected():
    data = levels()
    both = predict(data, context=4, frames=2)
    assert both.dims == data.dims
    assert both.level.variable.identical(data.level.variable)
    for level in (850, 500):
        alone = predict(data, context=4, frames=2, select={"level": level})
        assert alone.dims == ("time", "y", "x")
        assert alone.level == level
        np.testing.assert_allclose(alone.values, both.sel(level=level).values, atol=1e-3)


def test_what_cannot_be_selected_is_told():
    with pytest.raises(InputError, match="no level=700 — choose from: 850, 500"):
        predict(levels(), context=4, frames=2, select={"level": 700})
    with pytest.raises(InputError, match="no dimension 'member'"):
        predict(levels(), context=4, frames=2, select={"member": 1})


def test_missing_values_are_filled_and_left_out_of_scores():
    frames = gridded.blobs(8).astype("f4") * 70
    clean = xr.DataArray(frames, {"time": gridded.times(8)}, ("time", "y", "x"), "dbz", {"units": "dBZ"})
    holes = clean.where(np.random.default_rng(0).random(frames.shape) > 0.05)
    made = predict(holes, context=4, frames=2)
    assert not np.isnan(made.values).any()
    marked = predict(holes.fillna(-999.0), context=4, frames=2, missing=-999.0, range=(0, 70))
    np.testing.assert_allclose(marked.values, made.values, atol=1e-3)


# ---- Python


def test_a_dataarray_gives_a_dataarray():
    given = gridded.reflectivity(6).dbz
    made = predict(given, context=4, frames=3)
    assert isinstance(made, xr.DataArray)
    assert made.name == given.name
    assert {k: v for k, v in made.attrs.items() if not k.startswith("vmrnn_")} == given.attrs
    assert made.dtype == given.dtype
    for name in ("y", "x", "lat", "lon"):
        assert made[name].identical(given[name].reset_coords(drop=True).assign_coords(made[name].coords)), name
    assert (made.time.values == given.time.values[3] + gridded.STEP * np.arange(1, 4)).all()
    assert made.encoding["scale_factor"] == given.encoding["scale_factor"]


def test_a_dataset_is_to_be_given_as_its_variable():
    with pytest.raises(InputError, match="give one of its variables"):
        predict(gridded.reflectivity())


def test_years_of_other_calendars_and_numbered_times_go_on():
    frames = gridded.blobs(5)
    numbered = xr.DataArray(frames, {"time": np.arange(5) * 2}, ("time", "y", "x"), "cover")
    made = predict(numbered, context=4, frames=2)
    assert made.time.values.tolist() == [8, 10]
    assert made.forecast_reference_time.values == 6
    assert made.min() >= 0


# ---- Forms of radar


def test_odim_goes_in_and_comes_out(run, tmp_path):
    dbz = np.rint(gridded.blobs(6) * 120) / 2
    dbz[:, 0, 0] = np.nan
    dbz[:, -1, -1] = -np.inf  # undetected
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, stamp in enumerate(gridded.times(6)):
        gridded.write_odim(scans / f"{6 - number}.h5", dbz[number], stamp)
    found = series(scans)
    assert found.units == "dBZ"
    scan = found.scan(2)[0]
    np.testing.assert_allclose(scan[1:-1], dbz[2, 1:-1])
    assert np.isnan(scan[0, 0])
    assert scan[-1, -1] == -32
    code, _, err = run("predict", scans, "-o", tmp_path / "out" / "next.nc", *FEW)
    assert code == 2  # there is no such folder
    code, _, err = run("predict", scans, "-o", "next.nc", *FEW)
    assert code == 0, err
    made = xr.open_dataset(tmp_path / "next.nc")
    assert made.DBZH.attrs["units"] == "dBZ"
    assert made.crs.attrs["proj4"] == "+proj=laea"
    assert made.y.values[:2].tolist() == [-1000, -3000]
    assert (made.time.values == gridded.times(6)[3] + gridded.STEP * np.arange(1, 4)).all()
    assert np.isnan(made.DBZH.values[:, 0, 0]).all()
    assert made.DBZH.encoding["dtype"] == np.uint8


def test_knmi_goes_in(tmp_path):
    rain = gridded.blobs(3) * 2
    rain[:, 0] = np.nan
    for number in range(3):
        gridded.write_knmi(tmp_path / f"{number}.h5", rain[number], f"26-AUG-2010;00:{5 * number:02}:00.000")
    found = series(tmp_path)
    assert (found.units, found.axes.variable) == ("mm", "accumulated_precipitation")
    assert str(found.times[1]) == "2010-08-26T00:05:00.000000000"
    np.testing.assert_allclose(found.scan(1)[0], rain[1], atol=0.006)
    assert found.like(0)[1].y.values[0] == -3650.5


@pytest.mark.parametrize("packed", [True, False])
def test_pictures_of_gray_levels_with_a_time_go_in(tmp_path, packed):
    dbz = np.rint(gridded.blobs(3) * 120) / 2
    dbz[:, :3, :3] = np.nan
    for number in range(3):
        content = gridded.pgm(dbz[number], f"20160928150{number * 5 % 10}")
        (tmp_path / f"{number}.pgm{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    found = series(tmp_path / f"[01].pgm{'.gz' * packed}")
    assert len(found.times) == 2
    np.testing.assert_allclose(found.scan(0)[0], dbz[0])
    assert found.units == "dBZ"
    assert found.like(0)[1].encoding["_FillValue"] == 255


# ---- Bad input


def broken(tmp_path, what):
    """A path of something unusable, and what the error says."""
    data = gridded.reflectivity(6).drop_vars("time_bnds")
    del data.time.attrs["bounds"]
    path = tmp_path / "bad.nc"
    if what == "no time":
        data = data.isel(time=0, drop=True)
    elif what == "several":
        data = data.assign(again=data.dbz)
    elif what == "all missing":
        data["dbz"] = data.dbz * np.nan
    elif what == "one scan":
        data = data.isel(time=[0])
    elif what == "infinite":
        data["dbz"] = data.dbz.where(data.dbz < 20, np.inf).astype("f4")
        data.dbz.encoding = {}
    data.to_netcdf(path, engine="h5netcdf")
    if what == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no time", "has no time — give scans with a time"),
        ("several", "has several variables: dbz, again — choose one with --variable"),
        ("all missing", "missing values only"),
        ("one scan", "has only 1 frame(s) to start from"),
        ("half", "half written"),
        ("infinite", "holds infinite values"),
    ],
)
def test_bad_grids_get_one_line(run, tmp_path, what, said):
    code, _, err = run("predict", broken(tmp_path, what), "-o", "next.nc", *FEW)
    assert code == 2, err
    line = one_error_line(err)
    assert said in line
    assert "bad.nc" in line
    assert not (tmp_path / "next.nc").exists()


def test_a_netcdf_3_file_and_a_half_of_it(run, tmp_path):
    data = gridded.reflectivity(6)
    for variable in data.variables.values():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k not in ("zlib", "complevel")}
    path = tmp_path / "old.nc"
    data.to_netcdf(path, engine="scipy")
    assert run("predict", path, "-o", "next.nc", *FEW)[0] == 0
    assert xr.open_dataset(tmp_path / "next.nc").dbz.shape == (3, 32, 40)
    path.write_bytes(path.read_bytes()[:9000])
    code, _, err = run("predict", path, "-o", "other.nc", *FEW)
    assert code == 2
    assert "old.nc" in one_error_line(err)


def test_a_constant_field_stays_what_it_is():
    data = xr.DataArray(
        np.full((6, 16, 16), 280.0), {"time": gridded.times(6)}, ("time", "y", "x"), "t", {"units": "K"}
    )
    np.testing.assert_allclose(predict(data, context=4, frames=2).values, 280, atol=1e-3)


def test_weights_for_other_units_are_refused(run, rain, tmp_path):
    code, _, err = run("predict", rain, "-o", "next.nc", "--weights", "vmrnn-b-bikenyc", *FEW)
    assert code == 2
    assert "vmrnn-b-bikenyc is for grids in bikes/h, got one in dBZ" in one_error_line(err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--variable", "nothing"), "no variable 'nothing'"),
        (("--select", "level"), "write --select level=850"),
        (("--gaps", "ignore"), "choose from refuse, interpolate"),
        (("--transform", "cube"), "choose from none, log, sqrt, dB"),
        (("--layout", "THW"), "leave --layout out"),
        (("--size", "64"), "leave --size out"),
        (("--range", "5,1"), "no range"),
    ],
)
def test_bad_options_of_grids_get_one_line(run, rain, options, said):
    code, _, err = run("predict", rain, "-o", "next.nc", *FEW, *options)
    assert code == 2
    assert said in one_error_line(err)


def test_options_of_grids_are_for_grids(run, tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((12, 32, 32), np.uint8))
    code, _, err = run("predict", "clip.npy", "-o", "next.npz", "--transform", "log", *FEW)
    assert code == 2
    assert "is no grid, which --transform is for" in one_error_line(err)
    code, _, err = run("predict", "clip.npy", "-o", "next.nc", *FEW)
    assert code == 2
    assert "is no grid, and has no coordinates to write" in one_error_line(err)


def test_without_the_extra_it_is_said(run, rain, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5netcdf", None)
    code, _, err = run("predict", rain, "-o", "next.nc", *FEW)
    assert code == 2
    assert "pip install 'vmrnn[grids]'" in one_error_line(err)


def test_what_was_taken_for_granted_is_said_and_told_to_programs(run, rain):
    code, out, err = run("predict", rain, "-o", "next.nc", "--json", *FEW)
    told = json.loads(out)
    assert told["grid"]["units"] == "dBZ"
    assert told["grid"]["range"] == [0, 70]
    assert told["grid"]["forecast_reference_time"] == "2024-06-01 12:15"
    assert told["grid"]["valid_times"][0] == "2024-06-01 12:20"
    assert told["weights"] == "vmrnn-d-radar"
    assert any("the network sees 0 to 70 dBZ" in note for note in told["notes"])
    code, out, _ = run("predict", rain, "-o", "again.nc", "--range", "10,40", "--json", *FEW)
    notes = json.loads(out)["notes"]
    assert any("lie above 40 dBZ, up to" in note for note in notes)
    assert any("lie below 10: seen as that" in note for note in notes)


def test_a_pattern_names_the_output_by_its_folder(run, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    data = gridded.reflectivity(5)
    for number in range(5):
        data.isel(time=[number]).to_netcdf(folder / f"scan{number}.nc", engine="h5netcdf")
    code, _, err = run("predict", "scans/*.nc", "--format", "nc", *FEW)
    assert code == 0, err
    assert (tmp_path / "scans_predicted.nc").exists()
    code, _, err = run("predict", "scans/*.grib", "-o", "other.nc", *FEW)
    assert code == 2
    assert "matches no file" in one_error_line(err)


def test_traffic_goes_through_the_same_door_as_in_an_array(run, tmp_path):
    """Two channels in bikes an hour get the weights for them, and the numbers that an array gets."""
    given = xr.open_dataset(ROOT / "examples" / "traffic.nc")
    code, out, err = run("predict", ROOT / "examples" / "traffic.nc", "-o", "next.nc", "--threads", 1, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["weights"] == "vmrnn-b-bikenyc"
    assert told["notes"] == []
    made = xr.open_dataset(tmp_path / "next.nc")
    assert made.flow.dims == given.flow.dims
    assert made.direction.values.tolist() == ["in", "out"]
    assert made.flow.dtype == np.uint16
    np.savez(tmp_path / "bikes.npz", frames=given.flow.values.astype("f4"))
    assert run("predict", "bikes.npz", "-o", "array.npz", "--threads", 1)[0] == 0
    array = np.load(tmp_path / "array.npz")["prediction"]
    np.testing.assert_allclose(made.flow.values, np.rint(array), atol=1)


def test_the_city_is_drawn_as_its_script_says(tmp_path):
    import subprocess
    import sys

    subprocess.run([sys.executable, ROOT / "examples" / "make_traffic.py", tmp_path / "city.nc"], check=True)
    xr.testing.assert_identical(
        xr.open_dataset(tmp_path / "city.nc"), xr.open_dataset(ROOT / "examples" / "traffic.nc")
    )


def test_a_range_alone_keeps_what_is_usual_for_the_units():
    def sample():
        return 0.0, 1.0

    assert find_scale("f", "mm/h", sample, Declared(range=(0.1, 50))).transform == "dB"
    assert "--transform says otherwise" in find_scale("f", "mm/h", sample, Declared(range=(0.1, 50))).note
    assert find_scale("f", "mm/h", sample, Declared(range=(0, 50))).transform == "none"
    assert find_scale("f", "mm/h", sample, Declared(range=(0.1, 50), transform="none")).transform == "none"


def test_a_fixed_field_beside_the_scans_is_no_other_variable(run, rain, tmp_path):
    data = xr.open_dataset(rain)
    data["height"] = (("y", "x"), np.zeros((32, 40)))
    data = data.assign(made=np.datetime64("2024-01-01", "ns"))
    data.to_netcdf(tmp_path / "more.nc", engine="h5netcdf")
    code, _, err = run("predict", "more.nc", "-o", "next.nc", *FEW)
    assert code == 0, err
    assert xr.open_dataset(tmp_path / "next.nc").height.shape == (32, 40)
    code, _, err = run("predict", "next.nc", "-o", "after.nc", "--context", 3, "--frames", 1, "--threads", 1)
    assert code == 0, err  # a forecast goes in as any other file
    after = xr.open_dataset(tmp_path / "after.nc")
    assert after.time.values[0] == data.time.values[7]
    assert after.lead_time.values[0] == gridded.STEP


def test_people_are_told_when_a_forecast_is_valid(run, rain):
    code, out, _ = run("predict", rain, "-o", "next.nc", *FEW)
    assert code == 0
    assert (
        "valid from 2024-06-01 12:20 to 2024-06-01 12:30, forecast from scans up to 2024-06-01 12:15; the series" in out
    )
    code, out, _ = run("predict", rain, "-o", "end.nc", "--from-end", *FEW)
    assert "forecast from scans up to 2024-06-01 12:55\n" in out


def test_a_page_of_a_grid_is_written(run, rain, tmp_path):
    assert run("predict", rain, "-o", "next.html", *FEW)[0] == 0
    assert (tmp_path / "next.html").stat().st_size > 20000


def test_arrays_without_names_stay_without(tmp_path):
    data = xr.DataArray(gridded.blobs(5), {"time": gridded.times(5)}, ("time", "y", "x"))
    assert predict(data, context=4, frames=1).name is None


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Two thousand scans want hardly more than twenty."""
    import re
    import subprocess
    import sys

    script = [sys.executable, str(ROOT / "benchmarks" / "grids.py")]
    command = [*script, "--side", "64", "--threads", "1", "--scans", "20", "2000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    growths = [float(growth) for growth in re.findall(r"\(([-+.\d]+)%\)", done.stdout)]
    assert len(growths) == 2
    assert growths[1] < 10


def test_sums_of_rain_in_gifs_go_in_and_other_gifs_stay_films(run, tmp_path):
    from PIL import Image

    levels = np.rint(gridded.blobs(5) * 150).astype("u1")
    levels[:, :3, :3] = 255
    for number in range(5):
        picture = Image.fromarray(levels[number])
        picture.putpalette([level for level in range(256) for _ in "RGB"])
        comment = f"generated by Meteoswiss\nPRDT=AQC15135154{number} SCALE=mmh2 ACCUm=000005\n".encode()
        picture.save(tmp_path / f"AQC{number}.801.gif", comment=comment, optimize=False)
    found = series(tmp_path)
    assert found.units == "mm"
    assert [str(time)[:16] for time in found.times[:2]] == ["2015-05-15T15:40", "2015-05-15T15:41"]
    scan = found.scan(0)[0]
    assert np.isnan(scan[:3, :3]).all()
    level = int(levels[0, 20, 20])
    expected = 0 if level < 2 else (10 ** ((level - 71.5) / 20) / 316) ** (1 / 1.5)
    assert scan[20, 20] == pytest.approx(expected, rel=1e-5)
    assert found.like(0)[1].y.values[0] == 479500
    code, _, err = run("predict", tmp_path, "-o", tmp_path / "next.nc", *FEW)
    assert code == 2
    assert "would become a scan of" in one_error_line(err)
    (tmp_path / "out").mkdir()
    assert run("predict", tmp_path, "-o", "out/next.nc", *FEW)[0] == 0
    assert xr.open_dataset(tmp_path / "out" / "next.nc").precipitation.attrs["units"] == "mm"
    code, _, err = run("predict", "AQC0.801.gif", "-o", "out/one.nc", *FEW)
    assert "has only 1 frame(s)" in one_error_line(err)
    film = [Image.fromarray(frame) for frame in levels]
    film[0].save(tmp_path / "out" / "film.gif", save_all=True, append_images=film[1:])
    code, _, err = run("predict", "out/film.gif", "-o", "out/film.nc", *FEW)
    assert "is no grid" in one_error_line(err)


@pytest.mark.parametrize(
    ("service", "variable", "units", "minutes"),
    [
        ("bom", "precipitation", "kg m-2", 6),
        ("knmi", "accumulated_precipitation", "mm", 5),
        ("fmi", "reflectivity", "dBZ", 5),
        ("mch", "precipitation", "mm", 5),
    ],
)
def test_raw_radar_goes_in_and_comes_out(tmp_path, service, variable, units, minutes):
    """Samples of four weather services, in their own forms."""
    if "VMRNN_TEST_DATA" not in os.environ:
        pytest.skip("VMRNN_TEST_DATA is not set: no radar of weather services")
    folder = Path(os.environ["VMRNN_TEST_DATA"]) / "data" / "radar" / "raw" / service
    forecast = predict(folder, context=3, frames=1)
    forecast.save(tmp_path / "next.nc")
    made = xr.open_dataset(tmp_path / "next.nc")
    given = series(folder)
    dataset, data, _ = given.like(2)
    assert made[variable].attrs["units"] == units
    assert {k: v for k, v in made[variable].attrs.items() if k in data.attrs} == data.attrs
    for axis in "yx":
        xr.testing.assert_identical(made[axis].variable, dataset[axis].variable)
    time = given.axes.time
    assert made[time].values[0] - given.times[2] == np.timedelta64(minutes, "m")
    assert made.forecast_reference_time.values == given.times[2]
    scans = np.stack([given.scan(number) for number in range(3)])
    assert (np.isnan(made[variable].values[0]) == np.isnan(scans).all(0)[0]).all()
    highest = np.nanmax(scans)
    assert 0.15 * highest < np.nanmax(made[variable].values) <= 1.01 * highest
    assert np.nanmin(made[variable].values) == np.nanmin(scans)  # no rain, and no echo
