"""Gridded series as scientists have them: NetCDF, HDF5 and Zarr in, and out again with all that was around the numbers.

files.py     what lies where: which files are grids, in what form, each opened as a dataset of xarray
forms.py     radar composites that have a form of their own (ODIM, KNMI's HDF5, PGM), as such datasets
axes.py      which variable, and which of its dimensions is time, y and x
values.py    from values in their units to [0, 1] and back
series.py    the scans of a series in the order of their valid times, read one at a time
record.py    a forecast as a dataset, written beside its target

They need the extra `vmrnn[grids]`; xarray is imported when a grid is opened, and not before.
"""
