"""Gridded series for tests: blobs of rain that move, made with xarray and h5py in the forms that people have."""

from __future__ import annotations

import h5py
import numpy as np
import xarray as xr

STEP = np.timedelta64(5, "m")
START = np.datetime64("2024-06-01T12:00:00", "ns")


def blobs(scans, height=32, width=40, seed=0):
    """(T, H, W) in [0, 1]: some blobs that move right and downwards, dry elsewhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frames = np.zeros((scans, height, width))
    for _ in range(5):
        cy, cx, size, strength = (
            rng.uniform(0, height),
            rng.uniform(-10, width),
            rng.uniform(3, 6),
            rng.uniform(0.4, 0.9),
        )
        for t in range(scans):
            frames[t] += strength * np.exp(-((y - cy - 0.5 * t) ** 2 + (x - cx - t) ** 2) / (2 * size**2))
    return np.where(frames < 0.05, 0, frames).clip(0, 1)


def times(scans, start=START, step=STEP):
    return start + step * np.arange(scans)


def reflectivity(scans=12, height=32, width=40):
    """A dataset as CF wants it: packed dBZ on a projection, with latitudes and longitudes, bounds and a mask."""
    dbz = blobs(scans, height, width) * 70
    dbz[:, :4, :4] = np.nan  # the radar does not see this corner
    y, x = -500.0 * np.arange(height), 500.0 * np.arange(width)
    lat = 50 + y[:, None] / 111e3 + 0 * x
    lon = 10 + x / 70e3 + 0 * y[:, None]
    stamps = times(scans)
    data = xr.Dataset(
        {"dbz": (("time", "y", "x"), dbz.astype("f4"), {
            "units": "dBZ", "standard_name": "equivalent_reflectivity_factor", "long_name": "reflectivity",
            "grid_mapping": "crs", "cell_methods": "time: point"}),
         "crs": ((), np.int32(0), {"grid_mapping_name": "azimuthal_equidistant"}),
         "time_bnds": (("time", "bnds"), np.stack([stamps - STEP, stamps], 1))},
        {"time": ("time", stamps, {"standard_name": "time", "bounds": "time_bnds"}),
         "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}),
         "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"}),
         "lat": (("y", "x"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
         "lon": (("y", "x"), lon, {"standard_name": "longitude", "units": "degrees_east"})},
        {"title": "Radar of nowhere", "institution": "A test", "Conventions": "CF-1.7", "history": "made"},
    )  # fmt: skip
    data.dbz.encoding = {
        "dtype": "int16", "scale_factor": 0.01, "add_offset": 20.0, "_FillValue": np.int16(-32768), "zlib": True,
        "complevel": 3,
    }  # fmt: skip
    data.time.encoding = {"units": "minutes since 2024-01-01", "calendar": "standard", "dtype": "int32"}
    return data


def write_odim(path, dbz, stamp, quantity=b"DBZH"):
    """A composite in ODIM's HDF5; NaN is nodata, and -inf undetected."""
    raw = np.where(np.isnan(dbz), 255, np.where(np.isneginf(dbz), 254, np.rint((dbz + 32) / 0.5))).astype("u1")
    day, hour = str(stamp)[:10].replace("-", ""), str(stamp)[11:19].replace(":", "")
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_3")
        what = file.create_group("what").attrs
        what.update({"object": np.bytes_("COMP"), "date": np.bytes_(day), "time": np.bytes_(hour)})
        where = {"projdef": np.bytes_("+proj=laea"), "xscale": 1000.0, "yscale": 2000.0, "LL_lon": 9.5, "LL_lat": 47.0}
        file.create_group("where").attrs.update(where)
        group = file.create_group("dataset1/data1/what")
        group.attrs.update(
            {"quantity": np.bytes_(quantity), "gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 254.0}
        )
        file["dataset1/data1/data"] = raw


def write_knmi(path, millimetres, text):
    """A sum of rain as KNMI publishes it; NaN is missing."""
    raw = np.where(np.isnan(millimetres), 65535, np.rint(millimetres / 0.01)).astype("u2")
    with h5py.File(path, "w") as file:
        overview = file.create_group("overview").attrs
        overview.update({"product_datetime_end": np.bytes_(text), "product_group_name": np.bytes_("RAD_TEST")})
        geographic = {"geo_pixel_size_x": np.float32([1.0]), "geo_pixel_size_y": np.float32([-1.0])}
        geographic |= {"geo_row_offset": np.float32([3650.0]), "geo_column_offset": np.float32([0.0])}
        file.create_group("geographic").attrs.update(geographic)
        file.create_group("geographic/map_projection").attrs["projection_proj4_params"] = np.bytes_("+proj=stere")
        file.create_group("image1").attrs["image_geo_parameter"] = np.bytes_("ACCUMULATED_PRECIPITATION_[MM]")
        calibration = file.create_group("image1/calibration").attrs
        calibration["calibration_formulas"] = np.bytes_("GEO=0.01*PV+0.0")
        calibration["calibration_missing_data"] = np.int32([65535])
        file["image1/image_data"] = raw


def pgm(dbz, stamp):
    """The bytes of a picture with comments, as the Finnish weather service publishes it; NaN is missing."""
    raw = np.where(np.isnan(dbz), 255, np.rint((dbz + 32) * 2)).astype("u1")
    H, W = raw.shape
    header = f"P5\n# obstime {stamp}\n# param CorrectedReflectivity\n# metersperpixel_x 1000\n# metersperpixel_y 999\n"
    return f"{header}# projection radar {{\n# type stereographic\n# }}\n{W} {H}\n255\n".encode() + raw.tobytes()
