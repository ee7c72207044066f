"""Forecasts with the values of the last frame."""

from __future__ import annotations

import json

import gridded
import numpy as np
import pytest

from vmrnn_cli import predict
from vmrnn_cli.matching import match_values


def test_each_place_gets_the_value_of_its_rank():
    forecast = np.array([[[0.3, 0.1], [0.2, 0.4]], [[4, 3], [2, 1]]], np.float32)
    last = np.array([[[9, 7], [5, 3]], [[0, 1], [0, 8]]], np.float32)
    np.testing.assert_array_equal(match_values(forecast, last), [[[7, 3], [5, 9]], [[8, 1], [0, 0]]])


def test_places_forecast_alike_get_the_same():
    forecast = np.array([[[0, 0, 0, 0.5]]], np.float32)
    last = np.array([[[3, 6, 0, 12]]], np.float32)
    np.testing.assert_array_equal(match_values(forecast, last), [[[3, 3, 3, 12]]])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 33, 47)])
def test_the_distribution_is_that_of_the_last_frame_and_the_order_that_of_the_forecast(shape):
    rng = np.random.default_rng(0)
    forecast, last = (rng.random(shape, dtype=np.float32) for _ in range(2))
    matched = match_values(forecast, last)
    for made, known, wanted in zip(matched, last, forecast, strict=True):
        np.testing.assert_array_equal(np.sort(made, None), np.sort(known, None))
        np.testing.assert_array_equal(np.argsort(made, None), np.argsort(wanted, None))
    np.testing.assert_array_equal(match_values(last, last), last)


def test_a_plain_frame_stays_plain():
    plain = np.full((1, 4, 5), 0.25, np.float32)
    np.testing.assert_array_equal(match_values(np.random.default_rng(1).random((1, 4, 5), np.float32), plain), plain)


def test_rain_has_the_values_of_the_last_scan_unless_it_is_said_otherwise():
    rain = gridded.reflectivity().dbz
    options = {"context": 4, "frames": 3, "threads": 1, "weights": "vmrnn-d-radar"}
    last = np.sort(rain[3].values, None)
    matched, smooth = predict(rain, **options), predict(rain, match=False, **options)
    for made, untouched in zip(matched, smooth, strict=True):
        known = np.isfinite(made.values)
        values, wanted = np.sort(made.values[known]), last[np.isfinite(last)]
        np.testing.assert_allclose(values[wanted > 5], wanted[wanted > 5], atol=0.3)
        assert np.abs(values - wanted).mean() < 0.1  # where next to nothing is forecast, places are alike
        assert untouched.max() < made.max()
    other = rain.assign_attrs(units="K")
    np.testing.assert_array_equal(predict(other, range=(0, 70), **options), smooth)
    assert np.nanmax(np.abs(predict(other, range=(0, 70), match=True, **options) - matched)) < 0.01


def test_commands_say_that_values_are_matched(run, tmp_path):
    gridded.reflectivity().to_netcdf(tmp_path / "rain.nc", engine="h5netcdf")
    few = ("--context", 4, "--frames", 3, "--threads", 1, "--json")
    told = {}
    for name, option in (("own", ()), ("smooth", ("--no-match",))):
        _, out, _ = run("predict", "rain.nc", "-o", f"{name}.nc", *option, *few)
        told[name] = json.loads(out)
        _, out, _ = run("eval", "--data", "rain.nc", *option, *few)
        told[name]["eval"] = json.loads(out)["mse"]
    assert any("values of the last frame" in note for note in told["own"]["notes"])
    assert not any("values of the last frame" in note for note in told["smooth"]["notes"])
    for own, smooth in zip(told["own"]["metrics"].values(), told["smooth"]["metrics"].values(), strict=True):
        assert own != smooth
    assert told["own"]["eval"] != told["smooth"]["eval"]
