"""Radar composites that have a form of their own, as datasets of xarray with CF's attributes; values are read lazily.

ODIM    HDF5 as the European weather services exchange it (Michelson et al., OPERA Data Information Model)
KNMI    HDF5 as the Dutch weather service publishes it (`image1`, `geographic`, `overview`)
PGM     a picture of gray levels whose comments say when and what, as the Finnish weather service publishes it
GIF     a picture whose comment says when and what, as MeteoSwiss publishes rain sums (AQC, CPC)
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

if TYPE_CHECKING:
    import h5py
    import xarray

# Of ODIM's quantities: units, and CF's name where there is one.
_QUANTITIES = {
    "DBZH": ("dBZ", "equivalent_reflectivity_factor"), "DBZV": ("dBZ", "equivalent_reflectivity_factor"),
    "TH": ("dBZ", "equivalent_reflectivity_factor"), "TV": ("dBZ", "equivalent_reflectivity_factor"),
    "RATE": ("mm/h", "rainfall_rate"), "ACRR": ("mm", "lwe_thickness_of_precipitation_amount"),
    "VRADH": ("m/s", "radial_velocity_of_scatterers_away_from_instrument"),
}  # fmt: skip
_PGM_QUANTITY = {"CorrectedReflectivity": ("reflectivity", "dBZ", 0.5, -32.0)}  # name, units, scale and offset


def find_form(path: Path) -> Callable[[Path], xarray.Dataset] | None:
    """What opens an HDF5 file of a form that has no dimensions of its own; None for NetCDF and others."""
    import h5py

    with h5py.File(path, "r") as file:
        if "what" in file and "dataset1" in file:
            return open_odim
        if "image1/image_data" in file and "overview" in file:
            return open_knmi
    return None


def open_odim(path: Path) -> xarray.Dataset:
    """A composite in ODIM: dimensions y and x (from the north, from the west), a time, and a variable per quantity."""
    import h5py

    with h5py.File(path, "r") as file:
        what, where = _attributes(file, "what"), _attributes(file, "where")
        variables, time = {}, None
        for dataset in sorted(name for name in file if re.fullmatch(r"dataset\d+", name)):
            for data in sorted(name for name in file[dataset] if re.fullmatch(r"data\d*", name)):
                group = f"{dataset}/{data}"
                said = {**what, **_attributes(file, f"{dataset}/what"), **_attributes(file, f"{group}/what")}
                values = file[f"{group}/data"] if f"{group}/data" in file else file[group]
                day, hour = (str(said.get(f"end{key}", said.get(key, ""))) for key in ("date", "time"))
                time = time or _date(path, day + hour, "%Y%m%d%H%M%S")
                name = str(said.get("quantity", "data"))
                name = name if name not in variables else f"{name}_{dataset}"
                variables[name] = _odim_variable(path, values, said)
        y, x = next(iter(variables.values())).shape
        steps = [float(where.get(key, 1)) for key in ("yscale", "xscale")]
        attributes = {key: value for key, value in {**what, **where}.items() if np.ndim(value) == 0}
        crs = {"grid_mapping_name": "unknown", "proj4": str(where.get("projdef", "")), **_numbers(where)}
    coordinates = {
        "y": (("y",), -(np.arange(y) + 0.5) * steps[0], _projected("y", "m")),
        "x": (("x",), (np.arange(x) + 0.5) * steps[1], _projected("x", "m")),
    }
    return _dataset(path, variables, coordinates, time, {"source_format": "ODIM HDF5", **attributes}, crs)


def _odim_variable(path: Path, values: h5py.Dataset, said: dict[str, Any]) -> xarray.Variable:
    """Undetected values, which are measured and below the noise, are the lowest that the file's numbers can say."""
    if values.ndim != 2:
        raise InputError(f"{path} holds {values.ndim}-dimensional data, not a composite", "give a composite")
    gain, offset = float(said.get("gain", 1)), float(said.get("offset", 0))
    nodata, undetect = said.get("nodata"), said.get("undetect")
    units, standard = _QUANTITIES.get(str(said.get("quantity")), ("", ""))
    low = int(np.iinfo(values.dtype).min) if values.dtype.kind in "iu" else None
    lowest = low + 1 if low is not None and low == nodata else low

    def mended(raw: NDArray[Any]) -> NDArray[Any]:
        if undetect is None or lowest is None or undetect in (lowest, nodata):
            return raw
        return np.where(raw == undetect, np.asarray(lowest, raw.dtype), raw)

    attributes = {"units": units, "standard_name": standard, "long_name": str(said.get("quantity", ""))}
    packing = {"scale_factor": gain, "add_offset": offset}
    if nodata is not None:
        packing["_FillValue"] = values.dtype.type(nodata)
    attributes = {key: value for key, value in attributes.items() if value}
    return _lazy(path, values.name, ("y", "x"), values.shape, values.dtype, mended, {**attributes, **packing})


def open_knmi(path: Path) -> xarray.Dataset:
    """A composite as KNMI publishes it: dimensions y and x in km of its projection, a time, and one variable."""
    import h5py

    with h5py.File(path, "r") as file:
        image, geography = _attributes(file, "image1"), _attributes(file, "geographic")
        calibration, overview = _attributes(file, "image1/calibration"), _attributes(file, "overview")
        projection = _attributes(file, "geographic/map_projection") if "geographic/map_projection" in file else {}
        values = file["image1/image_data"]
        formula = re.fullmatch(r"GEO=([-+.\deE]+)\*PV([-+]*[-+.\deE]+)", str(calibration.get("calibration_formulas")))
        gain, offset = (float(number.replace("+-", "-")) for number in formula.groups()) if formula else (1.0, 0.0)
        keys = ("calibration_missing_data", "calibration_out_of_image")
        missing = {int(calibration[key]) for key in keys if key in calibration}
        nodata = min(missing) if missing else None

        def mended(raw: NDArray[Any]) -> NDArray[Any]:
            return raw if len(missing) < 2 else np.where(np.isin(raw, list(missing)), raw.dtype.type(nodata), raw)

        said = str(image.get("image_geo_parameter", ""))
        unit = re.search(r"\[(.*)\]", said)
        units = {"MM": "mm", "DBZ": "dBZ", "MM/H": "mm/h"}.get(unit[1] if unit else "", unit[1] if unit else "")
        name = re.sub(r"\W+", "_", re.sub(r"\[.*\]", "", said)).strip("_").lower() or "image"
        attributes: dict[str, Any] = {"units": units, "long_name": str(image.get("image_product_name", name))}
        attributes |= {"scale_factor": gain, "add_offset": offset}
        if nodata is not None:
            attributes["_FillValue"] = values.dtype.type(nodata)
        variable = _lazy(path, values.name, ("y", "x"), values.shape, values.dtype, mended, attributes)
        time = _date(path, str(overview.get("product_datetime_end", "")).split(".")[0].title(), "%d-%b-%Y;%H:%M:%S")
    H, W = variable.shape
    dy, dx = (float(geography.get(f"geo_pixel_size_{axis}", size)) for axis, size in (("y", -1), ("x", 1)))
    top, left = (float(geography.get(f"geo_{side}_offset", 0)) for side in ("row", "column"))
    coordinates = {
        "y": (("y",), (np.arange(H) + 0.5 + top) * dy, _projected("y", "km")),
        "x": (("x",), (np.arange(W) + 0.5 + left) * dx, _projected("x", "km")),
    }
    proj4 = str(projection.get("projection_proj4_params", ""))
    crs = {"grid_mapping_name": "polar_stereographic" if "stere" in proj4 else "unknown", "proj4": proj4}
    said_of_all = {"source_format": "KNMI HDF5", "product": str(overview.get("product_group_name", ""))}
    return _dataset(path, {name: variable}, coordinates, time, said_of_all, crs)


def open_pgm(path: Path) -> xarray.Dataset:
    """A picture of gray levels with `# key value` comments: `obstime`, `param`, `metersperpixel_x` and more."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        file.readline()
        comments: list[str] = []
        sizes: list[int] = []
        while len(sizes) < 3:
            line = file.readline().decode("latin-1")
            if not line:
                raise InputError(f"{path} ends within its header", "get the file whole: it is damaged, or half written")
            if line.startswith("#"):
                comments.append(line[1:].strip())
            else:
                sizes += [int(number) for number in line.split()]
        begin = file.tell()
    W, H, most = sizes
    said = dict(line.split(None, 1) for line in comments if len(line.split(None, 1)) == 2)
    if "obstime" not in said:
        raise InputError(f"{path} is a picture whose comments have no obstime", "convert it to NetCDF with its time")
    time = _date(path, said["obstime"].strip(), "%Y%m%d%H%M")
    name, units, gain, offset = _PGM_QUANTITY.get(said.get("param", ""), ("level", "", 1.0, 0.0))
    dtype = np.dtype(np.uint8 if most < 256 else ">u2")

    def read() -> NDArray[Any]:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            file.seek(begin)
            content = file.read(H * W * dtype.itemsize)
        if len(content) < H * W * dtype.itemsize:
            raise InputError(f"{path} ends within its picture", "get the file whole: it is damaged, or half written")
        return np.frombuffer(content, dtype).reshape(H, W)

    attributes: dict[str, Any] = {"units": units, "long_name": said.get("param", name), "_FillValue": dtype.type(most)}
    attributes |= {"scale_factor": gain, "add_offset": offset} if units else {}
    steps = [float(said.get(f"metersperpixel_{axis}", 1)) for axis in "yx"]
    coordinates = {
        "y": (("y",), -(np.arange(H) + 0.5) * steps[0], _projected("y", "m")),
        "x": (("x",), (np.arange(W) + 0.5) * steps[1], _projected("x", "m")),
    }
    kept = {key: value.strip() for key, value in said.items() if re.fullmatch(r"\w+", key)}
    kept = {key: value for key, value in kept.items() if key not in ("obstime", "radar") and not value.endswith("{")}
    crs = {"grid_mapping_name": "polar_stereographic" if "stereographic" in said.get("type", "") else "unknown"}
    crs |= {
        key: said[key].strip() for key in ("bottomleft", "topright", "centrallongitude", "truelatitude") if key in said
    }
    variable = _lazy_from(read, ("y", "x"), (H, W), dtype, attributes)
    return _dataset(path, {name: variable}, coordinates, time, {"source_format": "PGM", **kept}, crs)


def open_gif(path: Path) -> xarray.Dataset:
    """A sum of rain as MeteoSwiss publishes it, on the Swiss grid; its levels are logarithmic, which CF cannot pack."""
    from PIL import Image

    with Image.open(path) as image:
        comment = image.info.get("comment", b"").decode("latin-1")
        W, H = image.size
    said = dict(re.findall(r"(\w+)=(\S+)", comment))
    product = re.fullmatch(r"(\w{3})(\d{9})", said.get("PRDT", ""))
    if product is None or product[1] not in ("AQC", "CPC"):
        raise InputError(f"{path} is a product of MeteoSwiss's that is not read: {said.get('PRDT')}", "give AQC or CPC")
    time = _date(path, product[2], "%y%j%H%M")

    def read() -> NDArray[Any]:
        with Image.open(path) as image:
            return _swiss_rain()[np.asarray(image)]

    attributes = {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount", "long_name": product[1]}
    kilometre, left, top = 1000.0, 255e3, 480e3  # of the Swiss grid (LV03), which pictures lie on
    coordinates = {
        "y": (("y",), top - (np.arange(H) + 0.5) * kilometre, _projected("y", "m")),
        "x": (("x",), left + (np.arange(W) + 0.5) * kilometre, _projected("x", "m")),
    }
    crs = {
        "grid_mapping_name": "oblique_mercator",
        "proj4": "+proj=somerc +lat_0=46.95240556 +lon_0=7.43958333 +k_0=1 +x_0=600000 +y_0=200000 +ellps=bessel",
    }
    variable = _lazy_from(read, ("y", "x"), (H, W), np.dtype(np.float32), attributes)
    about = {"source_format": "MeteoSwiss GIF", "institution": "MeteoSwiss", "product": product[1]}
    return _dataset(path, {"precipitation": variable}, coordinates, time, about, crs)


def _swiss_rain() -> NDArray[np.float32]:
    """Millimetres of each level: half decibels of reflectivity, as rain by Z = 316 R^1.5; no rain at both ends."""
    levels = np.arange(256)
    rain = (10 ** ((levels - 71.5) / 20) / 316) ** (1 / 1.5)
    rain[(levels < 2) | (levels > 250)] = 0
    rain[255] = np.nan
    return rain.astype(np.float32)


# ----------------------------------------------------------------------------------------------------------------------


def _dataset(
    path: Path, variables: dict[str, xarray.Variable], coordinates: dict[str, Any], time: datetime | None,
    attributes: dict[str, Any], crs: dict[str, Any],
) -> xarray.Dataset:  # fmt: skip
    import xarray

    for variable in variables.values():
        variable.attrs["grid_mapping"] = "crs"
    dataset = xarray.Dataset(variables, coordinates, {key: value for key, value in attributes.items() if value != ""})
    dataset["crs"] = ((), np.int32(0), {key: value for key, value in crs.items() if value != ""})
    said = {"standard_name": "time", "units": "seconds since 1970-01-01", "calendar": "standard"}
    assert time is not None
    dataset["time"] = ((), np.int64((time - datetime(1970, 1, 1)).total_seconds()), said)
    return xarray.decode_cf(dataset, decode_coords="all")


def _projected(axis: str, units: str) -> dict[str, str]:
    return {"standard_name": f"projection_{axis}_coordinate", "axis": axis.upper(), "units": units}


def _attributes(file: h5py.File, group: str) -> dict[str, Any]:
    """The attributes of a group: text as such, arrays of one number as this number."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, (np.ndarray, np.generic)) and np.size(value) == 1 else value
        return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else value

    return {key: plain(value) for key, value in file[group].attrs.items()} if group in file else {}


def _numbers(said: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in said.items() if isinstance(value, (int, float))}


def _date(path: Path, text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        raise InputError(f"{path} says no time: '{text}'", "convert it to NetCDF with its time") from None


def _lazy(
    path: Path, name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype[Any],
    mended: Callable[[NDArray[Any]], NDArray[Any]], attributes: dict[str, Any],
) -> xarray.Variable:  # fmt: skip
    """A variable of an HDF5 file, which is opened anew when values are asked for."""

    def read() -> NDArray[Any]:
        import h5py

        with h5py.File(path, "r") as file:
            return mended(file[name][...])

    return _lazy_from(read, dims, shape, dtype, attributes)


def _lazy_from(
    read: Callable[[], NDArray[Any]], dims: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype[Any],
    attributes: dict[str, Any],
) -> xarray.Variable:  # fmt: skip
    import xarray
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Scan(BackendArray):
        def __init__(self) -> None:
            self.shape, self.dtype = shape, dtype

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(key, self.shape, support, lambda index: read()[index])

    return xarray.Variable(dims, indexing.LazilyIndexedArray(Scan()), attributes)
