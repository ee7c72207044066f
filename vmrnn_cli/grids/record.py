"""A forecast of a grid as a dataset: everything that stood around the given scans, and the times that it is valid for.

Notation: T frames ahead, C slices, H x W places.
"""

from __future__ import annotations

import datetime
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .axes import is_time
from .files import xarray_for
from .series import GridClip

if TYPE_CHECKING:
    import xarray

_PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "grid_mapping")
# What each kind of file can say of how values are stored, besides their packing.
_STORAGE = {
    ".nc": ("zlib", "complevel", "shuffle", "fletcher32", "compression", "compression_opts", "chunksizes"),
    ".zarr": ("chunks", "compressors", "filters"),
}
_REFERENCE, _LEAD = "forecast_reference_time", "lead_time"


def dataset_of(clip: GridClip, values: NDArray[np.float64], weights: str, version: str) -> xarray.Dataset:
    """A forecast as a dataset in the form of what was given.

    clip : of the given scans
    values : (T, C, H, W) in the data's own units, NaN where there are none
    weights, version : for its history
    """
    xarray = xarray_for(clip.series.name)
    series, axes = clip.series, clip.series.axes
    source, given, _ = series.like(clip.last_given)
    time = str(axes.time)
    dims = [str(dim) for dim in given.dims]
    dims = dims if time in dims else [time, *dims]
    times = [clip.time(clip.given + number) for number in range(len(values))]
    sizes = [len(series.slices[dim]) for dim in series.slices]
    ordered = (time, *series.slices, axes.y, axes.x)
    array = values.reshape(len(times), *sizes, *values.shape[-2:])
    given_type = given.dtype if given.dtype.kind == "f" else np.dtype(np.float32)
    if given.dtype.kind in "iu" and not np.isnan(values).any():  # not packed: numbers that are whole by nature
        limits = np.iinfo(given.dtype)
        array, given_type = np.rint(array).clip(limits.min, limits.max), given.dtype
    if given.dtype.kind == "b":
        array, given_type = np.rint(array), given.dtype
    data = xarray.DataArray(array.astype(given_type), dims=ordered).transpose(*dims)
    data.attrs = {key: value for key, value in given.attrs.items() if key != "actual_range"}
    data.attrs |= {"vmrnn_range": [clip.scale.low, clip.scale.high], "vmrnn_transform": clip.scale.transform}
    data.encoding = dict(given.encoding)
    coordinates: dict[str, Any] = {
        name: each for name, each in _kept(source, given, time).items() if name not in (time, _REFERENCE, _LEAD)
    }
    coordinates |= _shifted(source, given, clip, time, times)
    coordinates[time] = _time(source, clip, time, times)
    coordinates[_LEAD] = _lead(clip, time, len(times))
    coordinates[_REFERENCE] = _reference(source, clip, time)
    dataset = xarray.Dataset({axes.variable: data}, attrs=dict(source.attrs)).assign_coords(coordinates)
    dataset.attrs.setdefault("Conventions", "CF-1.8")
    history = f"vmrnn {version}: forecast with {weights} from {clip.given} scans"
    dataset.attrs["history"] = "\n".join([history, *filter(None, [str(source.attrs.get("history", ""))])])
    return dataset


def dataarray_of(clip: GridClip, values: NDArray[np.float64], weights: str, version: str) -> xarray.DataArray:
    """The same as the array that was given, of its own name."""
    name = clip.series.axes.variable
    array = dataset_of(clip, values, weights, version)[name]
    array = array.set_index(clip.series.levels) if clip.series.levels else array
    return array.rename(clip.series.given_name)


def _kept(source: xarray.Dataset, given: xarray.DataArray, time: str) -> dict[str, Any]:
    """Coordinates that do not depend on time, and what else stands in the dataset for all scans."""
    single = time not in given.dims
    kept = {str(name): each for name, each in given.coords.items() if time not in each.dims}
    kept |= {str(name): each for name, each in source.coords.items() if time not in each.dims and name not in kept}
    for name, each in source.data_vars.items():
        if time in each.dims or name == given.name or is_time(each) or (single and each.ndim > 1):
            continue
        if set(each.dims) <= set(given.dims):
            kept[str(name)] = each
    scalars = {
        str(name) for name, each in source.variables.items() if single and is_time(source[name]) and not each.ndim
    }
    return {
        name: each.drop_vars([c for c in each.coords if c != name])
        for name, each in kept.items()
        if name not in scalars
    }


def _shifted(
    source: xarray.Dataset, given: xarray.DataArray, clip: GridClip, time: str, times: list[Any]
) -> dict[str, Any]:
    """What else is a date along time (its bounds, the begin of a sum), as far from it as at the last given scan."""
    xarray = xarray_for(clip.series.name)
    series, place = clip.series, clip.series.like(clip.last_given)[2]
    at = series.times[clip.last_given]
    shifted = {}
    for name in map(str, source.variables):
        variable = source[name]
        timed = time in variable.dims if place is not None else not variable.ndim
        if name in (time, _REFERENCE, _LEAD) or not timed or not is_time(variable):
            continue
        last = variable.isel({time: place}) if place is not None else variable
        offsets = np.asarray(last.values) - at
        values = np.array([each + offsets for each in times])
        array = xarray.DataArray(values, dims=(time, *map(str, last.dims)), attrs=dict(variable.attrs))
        array.encoding = _time_encoding(variable.encoding, exact=False)
        shifted[name] = array
    return shifted


def _time(source: xarray.Dataset, clip: GridClip, time: str, times: list[Any]) -> Any:
    xarray = xarray_for(clip.series.name)
    variable = source[time] if time in source.variables else None
    attributes = dict(variable.attrs) if variable is not None else {}
    bounds = attributes.get("bounds", variable.encoding.get("bounds") if variable is not None else None)
    array = xarray.DataArray(np.array(times), dims=(time,), attrs=attributes)
    array.encoding = _time_encoding(variable.encoding if variable is not None else {}, array.values)
    array.encoding |= {"bounds": bounds} if bounds in source.variables and "bounds" not in attributes else {}
    return array


def _time_encoding(encoding: Any, values: Any = None, exact: bool = True) -> dict[str, Any]:
    """The given units of time; their type, where the new times are whole in these units, or it has fractions."""
    kept = {key: encoding[key] for key in ("units", "calendar") if key in encoding}
    dtype = encoding.get("dtype")
    if exact and "units" in kept and dtype is not None and np.dtype(dtype).kind in "iuf":
        from xarray.coding.times import encode_cf_datetime

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of times that want fractions, which they get
            numbers = np.asarray(encode_cf_datetime(values, kept["units"], kept.get("calendar"))[0])
        if np.dtype(dtype).kind == "f" or (numbers == np.rint(numbers)).all():
            kept["dtype"] = np.dtype(dtype)
        else:
            kept["dtype"] = np.dtype(np.float64)
    return kept


def _lead(clip: GridClip, time: str, count: int) -> Any:
    xarray = xarray_for(clip.series.name)
    leads = [clip.lead(number + 1) for number in range(count)]
    attributes = {"standard_name": "forecast_period", "long_name": "time since the last given scan"}
    if clip.series.seconds(leads[0]) is None:
        return xarray.DataArray(np.array(leads), dims=(time,), attrs=attributes)
    seconds = np.array([clip.series.seconds(lead) for lead in leads])
    array = xarray.DataArray((seconds * 1e9).round().astype("timedelta64[ns]"), dims=(time,), attrs=attributes)
    whole = bool((seconds % 60 == 0).all())
    array.encoding = {"units": "minutes" if whole else "seconds", "dtype": np.dtype(np.int32 if whole else np.float64)}
    return array


def _reference(source: xarray.Dataset, clip: GridClip, time: str) -> Any:
    xarray = xarray_for(clip.series.name)
    at = clip.time(clip.given - 1)
    value = np.array(at) if not isinstance(at, datetime.timedelta) else at
    attributes = {"standard_name": "forecast_reference_time", "long_name": "time of the last given scan"}
    array = xarray.DataArray(value, attrs=attributes)
    if time in source.variables:
        array.encoding = _time_encoding(source[time].encoding, np.atleast_1d(array.values))
    return array


# ----------------------------------------------------------------------------------------------------------------------


def write_dataset(dataset: xarray.Dataset, variable: str, path: Path) -> None:
    """Write a dataset by the suffix of a path: .zarr, else NetCDF 4. Raises OSError."""
    kind = ".zarr" if path.suffix.lower() == ".zarr" else ".nc"
    packed = _packable(dataset, variable)
    for name in packed.variables:
        packed[name].encoding = _encoding(packed[name], kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Zarr has not yet laid down, and xarray writes all the same
        if kind == ".zarr":
            shutil.rmtree(path, ignore_errors=True)
            packed.to_zarr(path, mode="w", consolidated=True, zarr_format=2 if _is_zarr_2(packed) else None)
        else:
            packed.to_netcdf(path, engine="h5netcdf", format="NETCDF4")


def _is_zarr_2(dataset: xarray.Dataset) -> bool:
    """Whether its compressors are those of Zarr's second format, which the third one does not take."""
    compressors = [each for v in dataset.variables.values() for each in v.encoding.get("compressors") or ()]
    return any(type(compressor).__module__.startswith("numcodecs") for compressor in compressors)


def _encoding(variable: xarray.DataArray, kind: str) -> dict[str, Any]:
    """How a variable is stored: as it was, as far as the kind of file can say so."""
    given = variable.encoding
    kept = {key: given[key] for key in (*_PACKING, "units", "calendar", "bounds", "coordinates") if key in given}
    kept |= {key: given[key] for key in _STORAGE[kind] if given.get(key) is not None}
    for chunks in ("chunksizes", "chunks"):
        if chunks in kept:
            sizes = tuple(int(size) for size in kept[chunks])
            if len(sizes) < variable.ndim:  # one scan a file, now along time
                sizes = (1,) * (variable.ndim - len(sizes)) + sizes
            if len(sizes) != variable.ndim or 0 in variable.shape:
                del kept[chunks]
                continue
            kept[chunks] = tuple(min(size, most) for size, most in zip(sizes, variable.shape, strict=True))
    if variable.name in variable.coords and "_FillValue" not in kept:
        kept["_FillValue"] = None  # CF wants no missing value of coordinates
    if variable.ndim == 0:
        for key in _STORAGE[kind]:
            kept.pop(key, None)
    return kept


def _packable(dataset: xarray.Dataset, variable: str) -> xarray.Dataset:
    """The same with values that the numbers of its packing can say: what lies beyond would come out as anything."""
    data = dataset[variable]
    encoding = data.encoding
    dtype = np.dtype(encoding.get("dtype") or data.dtype)
    if dtype.kind not in "iu" or data.dtype.kind != "f":
        return dataset.copy()
    limits = np.iinfo(np.dtype(f"u{dtype.itemsize}") if encoding.get("_Unsigned") in ("true", True) else dtype)
    lowest, highest = int(limits.min), int(limits.max)
    fills = {int(encoding[key]) for key in ("_FillValue", "missing_value") if _is_one_number(encoding.get(key))}
    if encoding.get("_Unsigned") in ("true", True):
        fills = {fill % (highest + 1) for fill in fills}
    while lowest in fills:
        lowest += 1
    while highest in fills:
        highest -= 1
    scale, offset = float(encoding.get("scale_factor", 1)), float(encoding.get("add_offset", 0))
    ends = sorted((lowest * scale + offset, highest * scale + offset))
    dataset = dataset.copy()
    dataset[variable] = data.clip(*ends, keep_attrs=True)
    dataset[variable].encoding = dict(encoding)
    if bool(np.isnan(data).any()) and not fills:
        dataset[variable].encoding |= {"dtype": np.dtype(np.float32)}
        for key in ("scale_factor", "add_offset"):
            dataset[variable].encoding.pop(key, None)
    return dataset


def _is_one_number(value: Any) -> bool:
    return value is not None and np.size(value) == 1 and bool(np.isfinite(value))
