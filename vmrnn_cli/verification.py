"""Forecasts scored as forecasters do: in the data's own units, against thresholds, at scales, per lead time.

The contingency table's scores (CSI, POD, FAR, frequency bias) and the fractions skill score are those of the package
`scores` (Leeuwenburg et al., 2024). All are pooled: they are those of the sums over all clips, and intervals come from
drawing whole events anew.

Notation: L lead times, K thresholds, S scales, E events, H x W places. Values are (L, H, W) in the data's own units,
NaN where the truth is missing, which is left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import interrupts
from .errors import InputError

SCALES = (4, 16, 64)  # of the fractions skill score, in places
EVENT_SCORES = {
    "csi": "CSI", "pod": "POD", "far": "FAR", "frequency_bias": "frequency bias", "fss": "FSS",
}  # fmt: skip
ERRORS = {"mae": "MAE", "rmse": "RMSE", "bias": "bias"}
HIGHER_IS_BETTER = ("csi", "pod", "fss")
_BANDS = 24  # of the power spectrum, up to half a cycle a place
_DRAWS = 1000

Values = NDArray[np.float64]


@dataclass
class Tally:
    """Sums over the clips of an event.

    counts : (L, K, 4), places with an event that was forecast and came, only forecast, only came, and neither
    fractions : (L, K, S, 3), of the forecast's fractions squared, the truth's, and their differences'
    errors : (L, 4), known places, error, absolute and squared error
    spectrum, true_spectrum : (L, bands), power
    """

    counts: Values
    fractions: Values
    errors: Values
    spectrum: Values
    true_spectrum: Values

    def add(self, other: Tally) -> None:
        """Take in another one's sums."""
        for name, sums in vars(other).items():
            vars(self)[name] = vars(self)[name] + sums


class Verification:
    """Takes forecasts clip by clip, and scores them.

    thresholds : in the data's own units; an event is to reach one
    scales : of the fractions skill score, sides of squares in places

    Raises:
        InputError: they make no sense, or the package `scores` is missing.
    """

    def __init__(self, thresholds: Sequence[float], scales: Sequence[int] = SCALES) -> None:
        if importlib.util.find_spec("scores") is None:
            raise InputError("--thresholds needs the package scores", "install it: pip install 'vmrnn[grids]'")
        if not thresholds or not np.isfinite(thresholds).all():
            raise InputError("--thresholds takes numbers", "write --thresholds 20,35")
        if not scales or min(scales) < 1:
            raise InputError("--scales takes numbers of places", "write --scales 4,16,64")
        self.thresholds, self.scales = tuple(sorted(set(thresholds))), tuple(sorted(set(scales)))
        self.tallies: dict[str, dict[int, Tally]] = {}  # by forecast, then by event

    @classmethod
    def parse(cls, thresholds: str | None, scales: str | None) -> Verification | None:
        """What the options say; None where no thresholds are given. Raises InputError for what are no numbers."""
        if thresholds is None:
            if scales is not None:
                raise InputError("--scales goes with --thresholds", "give both")
            return None
        try:
            limits = [float(part) for part in thresholds.split(",")]
        except ValueError:
            raise InputError(f"'{thresholds}' are no thresholds", "write --thresholds 20,35") from None
        try:
            sides = [int(part) for part in scales.split(",")] if scales is not None else list(SCALES)
        except ValueError:
            raise InputError(f"'{scales}' are no scales", "write --scales 4,16,64") from None
        return cls(limits, sides)

    def add(self, event: int, forecasts: Mapping[str, Values], truth: Values) -> None:
        """Take in a clip: forecasts by name and the truth, (L, ..., H, W) in the data's own units."""
        truth = truth.reshape(len(truth), -1, *truth.shape[-2:])
        for name, forecast in forecasts.items():
            made = self._tally(forecast.reshape(truth.shape), truth)
            events = self.tallies.setdefault(name, {})
            if event in events:
                events[event].add(made)
            else:
                events[event] = made

    def replace(self, parts: Sequence[dict[str, dict[int, Tally]]]) -> None:
        """Take the sums of all `parts`, as several processes made them, for its own."""
        self.tallies = {}
        for part in parts:
            for name, events in part.items():
                mine = self.tallies.setdefault(name, {})
                for event, tally in events.items():
                    if event in mine:
                        mine[event].add(tally)
                    else:
                        mine[event] = tally

    def _tally(self, forecast: Values, truth: Values) -> Tally:
        L, slices, H, W = truth.shape
        forecast = np.where(np.isnan(truth), np.nan, forecast)
        counts = np.zeros((L, len(self.thresholds), 4))
        for k, threshold in enumerate(self.thresholds):
            said, came, known = forecast >= threshold, truth >= threshold, ~np.isnan(truth)
            cells = (said & came, said & ~came, ~said & came, ~said & ~came & known)
            counts[:, k] = np.stack([cell.sum((1, 2, 3)) for cell in cells], 1)
        fractions = np.zeros((L, len(self.thresholds), len(self.scales), 3))
        for k, threshold in enumerate(self.thresholds):
            for s, scale in enumerate(self.scales):
                side = (min(scale, H), min(scale, W))
                for lead in range(L):
                    for c in range(slices):
                        fractions[lead, k, s] += _fractions(forecast[lead, c], truth[lead, c], threshold, side)
        error = forecast - truth
        sums = [(~np.isnan(error)).sum((1, 2, 3)), *(np.nansum(e, (1, 2, 3)) for e in (error, np.abs(error), error**2))]
        spectra = [np.stack([_spectrum(frame) for frame in np.nan_to_num(each)]) for each in (forecast, truth)]
        return Tally(counts, fractions, np.stack(sums, 1).astype(float), *spectra)

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """What `vmrnn eval --json` prints of it: scores of each forecast per lead time, and their 95 % intervals.

        There are none of a single event, and None stands for what is not defined, as where nothing was forecast.
        """
        found: dict[str, Any] = {"thresholds": list(self.thresholds), "scales": list(self.scales), "forecasts": {}}
        for name, events in self.tallies.items():
            tallies = [events[event] for event in sorted(events)]
            count = len(tallies)
            times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_DRAWS)
            found["events"] = count

            def scored(
                score: Callable[[Values], Values], part: str, tallies: list[Tally] = tallies, times: Any = times
            ) -> dict[str, Any]:
                sums = np.stack([getattr(tally, part) for tally in tallies])  # (E, ...)
                values = score(sums.sum(0))
                entry = {"per_lead": _plain(values)}
                if len(tallies) > 1:
                    drawn = score(np.tensordot(times, sums, 1))
                    with np.errstate(invalid="ignore"):
                        edges = np.percentile(drawn, [2.5, 97.5], axis=0)  # (2, L, ...)
                    entry["interval_95"] = _plain(np.moveaxis(edges, 0, -1))
                return entry

            table: dict[str, Any] = {}
            for error in ERRORS:
                table[error] = scored(lambda sums, error=error: _error_of(error, sums), "errors")  # type: ignore[misc]
            table["thresholds"] = {}
            for k, threshold in enumerate(self.thresholds):
                entry = table["thresholds"][f"{threshold:g}"] = {}
                for key in ("csi", "pod", "far", "frequency_bias"):
                    entry[key] = scored(lambda sums, key=key, k=k: _table_score(key, sums[..., k, :]), "counts")  # type: ignore[misc]
                entry["fss"] = {
                    f"{scale}": scored(lambda sums, k=k, s=s: _fss(sums[..., k, s, :]), "fractions")  # type: ignore[misc]
                    for s, scale in enumerate(self.scales)
                }
            total = sum((tally.spectrum for tally in tallies[1:]), tallies[0].spectrum)
            true = sum((tally.true_spectrum for tally in tallies[1:]), tallies[0].true_spectrum)
            table["spectrum"] = _plain(total)
            found["true_spectrum"] = _plain(true)
            found["forecasts"][name] = table
        found["cycles_per_place"] = _plain((np.arange(_BANDS) + 0.5) / (2 * _BANDS))
        return found


def rows_of(found: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The scores of a summary as rows: a label, and the entry of each forecast."""
    units = f" {found['units']}" if found.get("units") else ""
    tables = list(found["forecasts"].values())
    rows = [(f"{label}{units}", [table[key] for table in tables]) for key, label in ERRORS.items()]
    for threshold in map("{:g}".format, found["thresholds"]):
        at = [table["thresholds"][threshold] for table in tables]
        for key in ("csi", "pod", "far", "frequency_bias"):
            rows.append((f"{EVENT_SCORES[key]} at {threshold}{units}", [table[key] for table in at]))
        for scale in map(str, found["scales"]):
            rows.append((f"FSS at {threshold}{units}, {scale} places", [table["fss"][scale] for table in at]))
    return rows


def _fractions(forecast: Values, truth: Values, threshold: float, side: tuple[int, int]) -> Values:
    """Sums of squared fractions of one field, as `scores` computes them: forecast, truth, difference."""
    with interrupts.deferred():
        from scores.fast.fss.fss_backends import get_compute_backend
        from scores.fast.fss.typing import FssComputeMethod
        from scores.utils import NumpyThresholdOperator

    backend = get_compute_backend(FssComputeMethod.NUMPY)
    operator = NumpyThresholdOperator(np.greater_equal)
    field = backend(
        forecast, truth, event_threshold=np.float64(threshold), window_size=side, zero_padding=False,
        threshold_operator=operator,
    )  # fmt: skip
    return np.array(field.compute_fss_decomposed().tolist(), float)


def _fss(sums: Values) -> Values:
    """(..., L, 3) -> (..., L)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        score = 1 - sums[..., 2] / sums[..., :2].sum(-1)
        return np.where(sums[..., :2].sum(-1) > 0, score.clip(0), np.nan)  # but for rounding, none is below


def _table_score(name: str, counts: Values) -> Values:
    """A score of contingency tables (..., L, 4) -> (..., L), as `scores` computes it."""
    with interrupts.deferred():
        import xarray
        from scores.categorical import BasicContingencyManager

    dims = [f"d{axis}" for axis in range(counts.ndim - 1)]
    keys = ("tp_count", "fp_count", "fn_count", "tn_count")
    tables = {key: xarray.DataArray(counts[..., place], dims=dims) for place, key in enumerate(keys)}
    tables["total_count"] = xarray.DataArray(counts.sum(-1), dims=dims)
    methods = {
        "csi": "critical_success_index", "pod": "probability_of_detection", "far": "false_alarm_ratio",
        "frequency_bias": "frequency_bias",
    }  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(getattr(BasicContingencyManager(tables), methods[name])().values, float)


def _error_of(name: str, sums: Values) -> Values:
    """(..., L, 4) -> (..., L)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums[..., {"bias": 1, "mae": 2, "rmse": 3}[name]] / sums[..., 0]
    return np.sqrt(mean) if name == "rmse" else mean


def _spectrum(frame: Values) -> Values:
    """The power of (C, H, W) by cycles a place, whatever their direction: (bands,)."""
    _, H, W = frame.shape
    power = np.abs(np.fft.fft2(frame - frame.mean((1, 2), keepdims=True))) ** 2 / (H * W)
    cycles = np.hypot(np.fft.fftfreq(H)[:, None], np.fft.fftfreq(W)[None])  # (H, W)
    band = np.minimum((cycles * 2 * _BANDS).astype(int), _BANDS)
    count = np.bincount(band.ravel(), minlength=_BANDS + 1)
    total = np.bincount(band.ravel(), power.mean(0).ravel(), minlength=_BANDS + 1)
    return (total / np.maximum(count, 1))[:_BANDS]


def _plain(values: Values) -> list[Any]:
    """Nested lists, None for what is no finite number."""
    if np.ndim(values) == 0:
        return float(values) if np.isfinite(values) else None  # type: ignore[return-value]
    return [_plain(value) for value in values]
