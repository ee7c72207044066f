"""Which variable of a dataset is meant, and which of its dimensions is time, y and x: by CF's attributes, then by name.

Notation: a dataset is one of xarray; "others" are dimensions besides time, y and x (levels, members).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import xarray

_NAMES = {
    "time": ("time", "t", "valid_time", "date", "datetime", "times", "obstime"),
    "y": ("y", "lat", "latitude", "yc", "nj", "j", "south_north", "northing", "rlat", "ygrid", "row", "rows"),
    "x": ("x", "lon", "longitude", "xc", "ni", "i", "west_east", "easting", "rlon", "xgrid", "column", "columns"),
}
_STANDARD = {
    "time": ("time",),
    "y": ("projection_y_coordinate", "latitude", "grid_latitude"),
    "x": ("projection_x_coordinate", "longitude", "grid_longitude"),
}
_AXIS = {"time": "T", "y": "Y", "x": "X"}
_DEGREES = {
    "y": ("degrees_north", "degree_north", "degrees_n", "degree_n"),
    "x": ("degrees_east", "degree_east", "degrees_e", "degree_e"),
}


@dataclass(frozen=True)
class Axes:
    """What a variable's dimensions are.

    variable : its name
    time : a dimension, or a variable without one where the file is one scan; "" where there is none
    y, x : dimensions
    others : the rest
    """

    variable: str
    time: str
    y: str
    x: str
    others: tuple[str, ...] = ()


def find_axes(dataset: xarray.Dataset, name: str, wanted: str = "") -> Axes:
    """The axes of the variable that is wanted, or of the only one with two dimensions in space and time.

    Raises:
        InputError: there is none, or there are several; names them.
    """
    if wanted and wanted not in dataset.variables:
        known = ", ".join(map(str, dataset.data_vars)) or "none"
        raise InputError(f"{name} has no variable '{wanted}'", f"choose from its variables: {known}")
    found = {variable: axes for variable in map(str, dataset.data_vars) if (axes := _axes_of(dataset, variable))}
    if wanted:
        axes = found.get(wanted) or _axes_of(dataset, wanted)
        if axes is None:
            dims = ", ".join(f"{dim} {size}" for dim, size in dataset[wanted].sizes.items())
            raise InputError(
                f"{name}: {wanted} ({dims}) has no two dimensions in space that can be told",
                "name them y and x, or lat and lon",
            )
    else:
        timed = [axes for axes in found.values() if axes.time in dataset[axes.variable].dims]
        timed = timed or [axes for axes in found.values() if axes.time]
        if not found:
            known = ", ".join(map(str, dataset.data_vars)) or "none"
            raise InputError(f"{name} has no variable on a grid (its variables: {known})", "give one (time, y, x)")
        if len(timed or found) > 1:
            names = ", ".join(axes.variable for axes in timed or found.values())
            raise InputError(f"{name} has several variables: {names}", "choose one with --variable")
        axes = next(iter(timed or found.values()))
    if not axes.time:
        dims = ", ".join(f"{dim} {size}" for dim, size in dataset[axes.variable].sizes.items())
        raise InputError(f"{name}: {axes.variable} ({dims}) has no time", "give scans with a time (time, y, x)")
    return axes


def _axes_of(dataset: xarray.Dataset, variable: str) -> Axes | None:
    """Its axes; None where it has no two in space, or no numbers."""
    data = dataset[variable]
    if data.dtype.kind not in "biuf" or data.ndim < 2:
        return None
    dims = [str(dim) for dim in data.dims]
    time = _one(dataset, dims, "time")
    y, x = (_one(dataset, [dim for dim in dims if dim != time], axis) for axis in "yx")
    if not time and len(dims) > 2:
        # A scalar time beside further dimensions, or an unnamed first one.
        time = ""
    if not (y and x):  # where names tell nothing: the last two
        rest = [dim for dim in dims if dim != time]
        nameless = all(dim not in dataset.variables for dim in rest[-2:])
        if len(rest) < 2 or not nameless or y or x:
            return None
        y, x = rest[-2:]
    others = tuple(dim for dim in dims if dim not in (time, y, x))
    return Axes(variable, time or _scalar_time(dataset), y, x, others)


def _one(dataset: xarray.Dataset, dims: Sequence[str], axis: str) -> str:
    """The dimension that is an axis: by its attributes, then by its name; "" for none."""
    for dim in dims:
        if dim in dataset.variables and _says(dataset[dim], axis):
            return dim
    by_name = {dim.lower(): dim for dim in reversed(list(dims))}
    return next((by_name[name] for name in _NAMES[axis] if name in by_name), "")


def _says(coordinate: xarray.DataArray, axis: str) -> bool:
    """Whether a coordinate's attributes, or its type, say that it is an axis."""
    attributes = {**coordinate.encoding, **coordinate.attrs}
    if attributes.get("axis") == _AXIS[axis] or attributes.get("standard_name") in _STANDARD[axis]:
        return True
    if axis == "time":
        return is_time(coordinate)
    return str(attributes.get("units", "")).lower() in _DEGREES[axis]


def is_time(variable: xarray.DataArray) -> bool:
    """Whether the values of a variable are dates, of NumPy or of cftime."""
    if variable.dtype.kind == "M":
        return True
    if variable.dtype != np.dtype(object) or not variable.size:
        return False
    return hasattr(variable.values.flat[0], "calendar")


def _scalar_time(dataset: xarray.Dataset) -> str:
    """The variable without dimensions that is the time of a file with one scan; "" for none."""
    dates = [str(name) for name, variable in dataset.variables.items() if not variable.ndim and is_time(dataset[name])]
    said = [name for name in dates if _says_more(dataset[name])]
    named = [name for name in _NAMES["time"] if name in dates]
    return next(iter([*said, *named, *(dates if len(dates) == 1 else [])]), "")


def _says_more(variable: xarray.DataArray) -> bool:
    return variable.attrs.get("standard_name") == "time" or variable.attrs.get("axis") == "T"
