"""Pages of grids: maps in the variable's colours, units and valid times."""

from __future__ import annotations

import base64
import io
import json
import re

import gridded
import numpy as np
import pytest
import xarray as xr
from browser import needs_browser
from PIL import Image

from vmrnn_cli import maps, predict
from vmrnn_cli.grids.values import GridScale
from vmrnn_cli.pages import media

FEW = ("--context", 4, "--frames", 3, "--threads", 1)


def stored(page):
    return json.loads(re.search(r'<script type="application/json" id="clips">(.*?)</script>', page.read_text())[1])


def levels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))[..., 0]


def rates(latitudes):
    rain = 40 * gridded.blobs(8, 24, 32)
    rain[:, :5, :6] = np.nan
    coordinates = {"time": gridded.times(8), "lat": latitudes, "lon": np.linspace(5, 9, 32)}
    data = xr.DataArray(rain.astype("f4"), coordinates, ("time", "lat", "lon"), "rain", {"units": "mm h-1"})
    data.lat.attrs["units"], data.lon.attrs["units"] = "degrees_north", "degrees_east"
    return data


def test_levels_tell_missing_from_dry_from_rain():
    scale = GridScale("mm/h", 0.1, 300, "dB")
    given = np.array([[[np.nan, 0.0], [0.1, 40.0]]])
    found = maps.levels_of(given, maps.colours_for(scale, given))
    assert found.tolist() == [[[0, 1], [2, 255]]]
    kelvin = np.array([[270.0, 280.0, 290.0]])
    assert maps.levels_of(kelvin, maps.colours_for(GridScale("K", 270, 290), kelvin)).tolist() == [[2, 128, 255]]


@pytest.mark.parametrize(("latitudes", "corner"), [((40, 50), (-1, 0)), ((50, 40), (0, 0))])
def test_a_page_of_a_forecast_has_maps(run, tmp_path, latitudes, corner):
    rates(np.linspace(*latitudes, 24)).to_netcdf(tmp_path / "rain.nc", engine="h5netcdf")
    code, _, err = run("predict", "rain.nc", "-o", "page.html", *FEW)
    assert code == 0, err
    (clip,) = stored(tmp_path / "page.html")["clips"]
    assert clip["times"] == [f"2024-06-01 12:{minute:02}" for minute in range(0, 35, 5)]
    assert clip["leads"] == ["+5 min", "+10 min", "+15 min"]
    assert clip["look"]["units"] == "mm h-1"
    assert clip["look"]["map"]["most"].endswith(" mm h-1")
    assert clip["look"]["map"]["under"] == [255, 255, 255]
    first = levels(clip["given"][0])
    assert first.shape == (24, 32)
    assert first[corner] == 0  # missing, in the south-west or north-west, as the latitudes say
    assert (first == 1).any()
    text = (tmp_path / "page.html").read_text()
    assert "valid from 2024-06-01 12:20 to 2024-06-01 12:30" in text
    assert "error, mm h-1" in text.replace("Error", "error")


def test_errors_are_in_the_units(tmp_path):
    data = rates(np.linspace(40, 50, 24))
    data.to_netcdf(tmp_path / "rain.nc", engine="h5netcdf")
    forecast = predict(tmp_path / "rain.nc", context=4, frames=3)
    film = media.GridFilm(forecast.grid.scale, forecast.grid.values, forecast.context)
    truth = forecast.truth[0]
    off = forecast.grid.values(forecast.prediction[0]) - data.values[4]
    assert film.error(forecast.prediction[0], truth) == pytest.approx(np.sqrt(np.nanmean(np.square(off))), rel=0.03)
    assert film.error(truth, np.full_like(truth, np.nan)) is None


def test_slices_stand_side_by_side(tmp_path):
    for slices, tiles in ((2, (1, 2)), (3, (2, 2)), (4, (2, 2))):
        frames = np.ones((2, slices, 10, 10), np.float32)
        film = media.GridFilm(GridScale("K", 0, 1), lambda frame: frame.astype(float), frames)
        assert (film.rows, film.columns) in (tiles, tiles[::-1])
        assert levels(film.encode(frames[0])).shape == (10 * film.rows, 10 * film.columns)


def test_large_maps_of_an_evaluation_are_thinned(run, tmp_path):
    rates(np.linspace(40, 50, 24)).to_netcdf(tmp_path / "rain.nc", engine="h5netcdf")
    code, _, err = run("eval", "--data", "rain.nc", "--report", "page.html", "--limit", 1, *FEW)
    assert code == 0, err
    (clip,) = stored(tmp_path / "page.html")["clips"]
    assert clip["leads"] == ["+5 min", "+10 min", "+15 min"]
    assert clip["times"][0] == "2024-06-01 12:00"
    assert clip["look"]["map"]["missing"] == [200, 204, 210]
    film = media.GridFilm(
        GridScale("K", 0, 1), lambda f: f.astype(float), np.ones((2, 1, 300, 500), np.float32), most=128
    )
    assert film.size == (167, 100)


@needs_browser
def test_a_page_shows_maps_and_valid_times(run, browser, tmp_path):
    rates(np.linspace(40, 50, 24)).to_netcdf(tmp_path / "rain.nc", engine="h5netcdf")
    assert run("predict", "rain.nc", "-o", "page.html", *FEW)[0] == 0
    browser.open(tmp_path / "page.html")
    browser.until("players[0].at === 0")
    browser.value("(players[0].seek(5), 1)")
    assert browser.value("players[0].where.textContent") == "2024-06-01 12:25 · +10 min ahead"
    assert browser.value("players[0].boxes[1].badge.textContent").endswith(" mm h-1")
    canvas = "players[0].boxes[0].canvas"
    pixel = f"{canvas}.getContext('2d').getImageData(4, {canvas}.height - 4, 1, 1).data"
    assert browser.value(f"[...{pixel}]") == [200, 204, 210, 255]  # where nothing is known
    assert browser.messages == []
