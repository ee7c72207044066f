"""Forecasts with the values of the last frame."""

from __future__ import annotations

import numpy as np
import pytest

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
