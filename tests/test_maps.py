"""Pictures of grids: colours in the data's units, axes in its coordinates, valid times."""

from __future__ import annotations

import gridded
import imageio.v3 as imageio
import numpy as np
import pytest
import xarray as xr

from vmrnn_cli import maps, predict
from vmrnn_cli.grids.series import GridClip, GridSeries

FEW = {"context": 4, "frames": 3}


@pytest.fixture(scope="module")
def forecast(tmp_path_factory):
    path = tmp_path_factory.mktemp("rain") / "rain.nc"
    gridded.reflectivity().to_netcdf(path, engine="h5netcdf")
    return predict(path, **FEW)


def clip_of(units, values, low=0.0):
    frames = low + values * gridded.blobs(3)
    data = xr.DataArray(frames, {"time": gridded.times(3)}, ("time", "y", "x"), "v", {"units": units})
    series = GridSeries(data)
    clip = GridClip(series, series.scale(), 0)
    given = list(clip.frames())
    clip.take_given(given)
    return clip, clip.values(np.stack(given))


@pytest.mark.parametrize(
    ("units", "values", "low", "name", "ends"),
    [
        ("dBZ", 60, 0, "viridis_r", (1.4, 70)),
        ("K", 20, 270, "RdYlBu_r", (270, 290)),
        ("m/s", 40, -10, "RdBu_r", (-28, 28)),
        ("1", 1, 0, "Blues_r", (0, 1)),
        ("ug m-3", 30, 0, "viridis", (0, 30)),
    ],
)
def test_colours_fit_the_variable(units, values, low, name, ends):
    clip, given = clip_of(units, values, low)
    colours = maps.colours_for(clip.scale, given)
    assert colours.map.name == name
    assert (colours.norm.vmin, colours.norm.vmax) == pytest.approx(ends, rel=0.15)


def test_rain_rates_have_a_logarithmic_scale_and_dry_places_are_not_missing():
    clip, given = clip_of("mm/h", 40)
    colours = maps.colours_for(clip.scale, given)
    shown = colours.map(colours.norm(maps._drawable(given[0, 0], colours)))
    dry = given[0, 0] == 0
    assert dry.any()
    assert (shown[dry] == 1).all()  # white


def test_maps_have_north_up_and_their_coordinates(forecast):
    place = maps.place_of(forecast.grid)
    assert place.extent == (-0.25, 19.75, -15.75, 0.25)  # km, to the edges of the cells
    assert place.origin == "upper"
    assert place.labels == ("x (km)", "y (km)")
    north = xr.DataArray(
        gridded.blobs(3), {"time": gridded.times(3), "lat": np.linspace(50, 60, 32), "lon": np.linspace(0, 10, 40)},
        ("time", "lat", "lon"),
    )  # fmt: skip
    north.lat.attrs["units"] = "degrees_north"
    series = GridSeries(north)
    place = maps.place_of(GridClip(series, series.scale(), 0))
    assert place.origin == "lower"
    assert place.extent[2] < place.extent[3]
    assert place.aspect == pytest.approx(1 / np.cos(np.radians(55)))


@pytest.mark.parametrize("layout", [None, "column", "grid", "swipe"])
def test_a_film_says_when_each_frame_is_valid(forecast, layout):
    panels = ("truth", "prediction") if layout == "swipe" else ("truth", "prediction", "error")
    film = maps.MapFilm(forecast.grid, forecast.context, 3, panels, "weights", layout=layout)
    canvases = [film.context_frame(index, frame) for index, frame in enumerate(forecast.context)]
    assert film._heading.get_text() == "2024-06-01 12:15   given 4/4"
    for index, step in enumerate(forecast.steps):
        canvases.append(film.predicted_frame(index, *step))
    assert film._heading.get_text() == "2024-06-01 12:30   forecast +15 min"
    assert len({canvas.shape for canvas in canvases}) == 1
    assert all(side % 2 == 0 for side in canvases[0].shape[:2])
    axes, image = film._artists["prediction", 0]
    shown = np.asarray(image.get_array())
    known = ~np.isnan(forecast.grid.values(forecast.prediction[-1])[0])
    np.testing.assert_allclose(shown[known], forecast.grid.values(forecast.prediction[-1])[0][known])
    assert axes.get_title() == "forecast +15 min"


@pytest.mark.parametrize("suffix", ["gif", "mp4", "png"])
def test_pictures_are_written(forecast, tmp_path, suffix):
    path = tmp_path / f"rain.{suffix}"
    forecast.save(path)
    picture = imageio.imread(path, index=0) if suffix != "mp4" else np.zeros((300, 300, 3))
    assert path.stat().st_size > 1000
    assert min(picture.shape[:2]) > 200


def test_the_strip_shows_given_and_predicted_maps(forecast):
    strip = maps.MapStrip(forecast.grid, forecast.context, 3, ("truth", "prediction", "error"), "weights")
    blank = strip.canvas.copy()
    for index, frame in enumerate(forecast.context):
        strip.context_frame(index, frame)
    for index, step in enumerate(forecast.steps):
        strip.predicted_frame(index, *step)
    assert (strip.canvas != blank).mean() > 0.2
    titles = [axes.get_title() for axes in strip._grid[0] if axes.get_title()]
    assert titles[-1] == "2024-06-01 12:30\n+15 min"


def test_slices_are_shown_below_each_other():
    frames = np.stack([gridded.blobs(6), gridded.blobs(6, seed=1)], 1)
    data = xr.DataArray(frames, {"time": gridded.times(6), "level": [850, 500]}, ("time", "level", "y", "x"))
    series = GridSeries(data)
    clip = GridClip(series, series.scale(), 0)
    given = np.stack(list(clip.frames())[:4])
    clip.take_given(list(given))
    film = maps.MapFilm(clip, given, 2, ("context", "prediction"), "")
    film.context_frame(0, given[0])
    film.predicted_frame(0, given[0], None)
    assert set(film._artists) == {(panel, piece) for panel in ("context", "prediction") for piece in (0, 1)}
