"""Files of grids: known by their content, opened by xarray, lazily."""

from __future__ import annotations

import gc
import glob
import gzip
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import interrupts
from ..errors import InputError, os_failure

if TYPE_CHECKING:
    import xarray

HDF5, NETCDF3, PGM, GIF, ZARR = "HDF5", "NetCDF 3", "PGM", "GIF", "Zarr"
SUFFIXES = (".nc", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".hdf", ".he5", ".zarr", ".pgm", ".pgm.gz", ".gif")
_ONLY_GRIDS = SUFFIXES[:-3]  # pictures and films have the others, too
_STORE = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")  # of which a Zarr store has one at its top
_MAGIC = {b"\x89HDF\r\n\x1a\n": HDF5, b"CDF\x01": NETCDF3, b"CDF\x02": NETCDF3, b"CDF\x05": NETCDF3}
_MOST_OF_ZIP = 4  # bytes that tell a zip file


def kind_of(path: Path) -> str | None:
    """What form of grid lies at a path, by its content; None for none. Raises OSError."""
    if path.is_dir():
        return ZARR if any((path / name).exists() for name in _STORE) else None
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] == b"GIF8":
            head = file.read(2048)  # of MeteoSwiss, whose comment says what it is; others are films
            return GIF if b"Meteoswiss" in head and b"PRDT=" in head else None
    if start[:2] == b"\x1f\x8b" and _of_pgm(path):
        with gzip.open(path) as unpacked:
            try:
                start = unpacked.read(8)
            except (OSError, EOFError):
                return None
    if start[:2] == b"P5" and _of_pgm(path):
        return PGM
    if start[:_MOST_OF_ZIP] == b"PK\x03\x04" and path.name.lower().endswith(".zarr.zip"):
        return ZARR
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def _of_pgm(path: Path) -> bool:
    return path.name.lower().endswith((".pgm", ".pgm.gz"))


def is_pattern(name: str) -> bool:
    """Whether a name is no path that is there, but a pattern for several."""
    return glob.has_magic(name) and not Path(name).exists()


def matches(name: str) -> list[Path]:
    """What a pattern matches, by name. Raises InputError where that is nothing."""
    found = [Path(path) for path in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 - absolute or not
    if not found:
        raise InputError(f"{name} matches no file", "check the pattern")
    return found


def grid_files(path: Path) -> list[Path]:
    """The files of one series: a file, a Zarr store, those in a folder, or those that a pattern matches.

    By name; none where the path holds no grid.
    """
    if is_pattern(str(path)):
        return [found for found in matches(str(path)) if kind_of(found)]
    if not path.exists():
        return []
    if path.is_dir() and kind_of(path) is None:
        inside = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        return [file for file in inside if file.name.lower().endswith(SUFFIXES) and kind_of(file)]
    return [path] if kind_of(path) else []


def is_named_as_grid(path: Path) -> bool:
    """Whether a name is that of a grid and of nothing else, whatever lies there."""
    return path.name.lower().endswith(_ONLY_GRIDS)


def is_grid(path: Path) -> bool:
    """Whether what lies at a path is a grid, or a folder or pattern of grids. Raises OSError."""
    return bool(grid_files(path))


def open_dataset(path: Path, group: str | None = None) -> xarray.Dataset:
    """Open a file of grids: values are read when they are asked for, decoded as CF says.

    Raises:
        InputError: it cannot be opened, or a package is missing.
    """
    xarray = xarray_for(str(path))
    kind = kind_of(path)
    options: dict[str, Any] = {"decode_coords": "all", "cache": False, "group": group}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of attributes that name variables which are not there
            if kind == ZARR:
                return xarray.open_dataset(path, engine="zarr", chunks=None, **options)
            if kind == NETCDF3:
                options.pop("group")
                return xarray.open_dataset(path, engine="scipy", **options)
            from . import forms

            if kind in (PGM, GIF):
                return forms.open_pgm(path) if kind == PGM else forms.open_gif(path)
            form = forms.find_form(path)
            if form is not None:
                return form(path)
            return xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort", **options)
    except InputError:
        raise
    except Exception as error:  # damaged files make libraries raise anything
        failed = unreadable(path, error.with_traceback(None))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()  # SciPy leaves a file open that it could not read, and complains when that goes
        raise failed from error


def unreadable(path: Path | str, error: Exception) -> Exception:
    """What to raise for a file that a library failed at."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        failed = os_failure(f"cannot read {path}", error)
        if "HDF" not in str(error) and "truncated" not in str(error):
            return failed
    if isinstance(error, (ImportError, ModuleNotFoundError)):
        return InputError(f"{path} wants a package: {error}", "install it: pip install 'vmrnn[grids]'")
    said = " ".join(str(error).split()) or type(error).__name__
    todo = "get the file whole: it is damaged, or half written"
    if "decode time units" in said:
        what = said.partition("decode time units ")[2].partition(" with ")[0][:200]
        return InputError(
            f"{path} has times in {what}, which say no time in their calendar",
            "write them in days, hours or seconds since a date",
        )
    return InputError(f"{path} cannot be read: {said[:200]}", todo)


def xarray_for(name: str) -> Any:
    """The module xarray, which reads a file. Raises InputError where it is not installed."""
    try:
        with interrupts.deferred():
            import h5netcdf  # noqa: F401 - found out before a file of it is opened
            import xarray
    except ImportError as error:
        raise InputError(
            f"{name} is a grid, which needs a package: {error}", "install it: pip install 'vmrnn[grids]'"
        ) from error
    return xarray
