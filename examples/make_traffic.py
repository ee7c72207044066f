"""Make up the bikes of a city, as a grid: how many come and go in each of 16 x 8 places, hour by hour.

    python examples/make_traffic.py examples/traffic.nc [--days 5] [--seed 0]

Homes lie all along, work at two places: bikes go there in the morning and back in the evening, fewer on weekends. Needs
`pip install 'vmrnn[grids]'`. The file has the form that `vmrnn-b-bikenyc` takes: flow (time, direction, y, x) in
bikes/h, where direction is "in" and "out", in this order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

H, W = 16, 8
BUSIEST = 110.0  # bikes an hour, in one place


def flows(days: int, seed: int) -> np.ndarray:
    """(T, 2, H, W) counts: T hours, in and out."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    work = np.exp(-((y - 3) ** 2 / 16 + (x - 3.6) ** 2 / 2.5)) + 0.7 * np.exp(-((y - 13) ** 2 / 5 + (x - 3) ** 2 / 2))
    home = 0.45 * np.exp(-((y - 7) ** 2 / 60 + (x - 3.4) ** 2 / 4)) * rng.uniform(0.3, 1, (H, W))
    hour, day = np.arange(24 * days) % 24, np.arange(24 * days) // 24

    def rush(at: float, width: float) -> np.ndarray:
        return np.exp(-((hour + 0.5 - at) ** 2) / (2 * width**2))[:, None, None]

    busy = np.where(day % 7 < 5, 1.0, 0.45)[:, None, None] * rng.uniform(0.85, 1.15, days)[day][:, None, None]
    morning, noon, evening = rush(8.7, 1.2), 0.5 * rush(14, 3.5), 0.9 * rush(18, 1.8)
    came = busy * (morning * work + noon * (work + home) / 2 + evening * home)
    went = busy * (morning * home + noon * (work + home) / 2 + evening * work)
    return rng.poisson(BUSIEST * np.stack([came, went], 1))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--days", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    counts = flows(given.days, given.seed)
    times = np.datetime64("2024-04-01", "ns") + np.timedelta64(1, "h") * np.arange(len(counts))
    said = {"units": "bikes/h", "long_name": "bikes that come and go"}
    city = xr.Dataset(
        {"flow": (("time", "direction", "y", "x"), counts.astype("u2"), said)},
        {
            "time": ("time", times, {"standard_name": "time"}), "direction": ["in", "out"],
            "y": ("y", 500.0 * np.arange(H)[::-1], {"axis": "Y", "units": "m", "long_name": "northwards"}),
            "x": ("x", 500.0 * np.arange(W), {"axis": "X", "units": "m", "long_name": "eastwards"}),
        },
        {"title": "Bikes of a city that is made up", "Conventions": "CF-1.8"},
    )  # fmt: skip
    city.flow.encoding = {"zlib": True, "complevel": 9, "shuffle": True}
    city.time.encoding = {"units": "hours since 2024-04-01", "dtype": "int32"}
    city.to_netcdf(given.output, engine="h5netcdf")


if __name__ == "__main__":
    main()
