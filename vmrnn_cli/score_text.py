"""Scores as people read them, in tables on a terminal and on pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .metrics import HIGHER_IS_BETTER


def mean(scores: Mapping[str, Any], name: str) -> str:
    """A metric's mean of what `Scores.summary` returns."""
    value = scores[name]
    if value is None:
        return "∞" if "psnr" in name else "–"
    return f"{value:.{_digits(value, name)}f}"


def interval(scores: Mapping[str, Any], name: str) -> str:
    """Its 95 % interval, empty where there is none, as of a single clip."""
    value, pair = scores[name], scores["interval_95"][name]
    return "" if value is None or pair is None else " - ".join(f"{edge:.{_digits(value, name)}f}" for edge in pair)


def mean_and_interval(scores: Mapping[str, Any], name: str) -> str:
    """The mean, and the interval in brackets."""
    around = interval(scores, name)
    return f"{mean(scores, name)} ({around})" if around else mean(scores, name)


def difference(found: Mapping[str, Any], name: str) -> tuple[str, str]:
    """A difference of what `evaluate.compared` returns, and its interval, both signed."""
    value, pair = found["difference"], found["interval_95"]
    if value is None:
        return "–", ""
    digits = _digits(value, name)
    return f"{value:+.{digits}f}", "" if pair is None else " to ".join(f"{edge:+.{digits}f}" for edge in pair)


def verdict(found: Mapping[str, Any], name: str) -> str:
    """Whether a difference is certainly "better" or "worse"; empty where its interval holds 0, and for sharpness."""
    pair = found["interval_95"]
    if pair is None or pair[0] <= 0 <= pair[1] or name == "sharpness":  # which has its best value at 1
        return ""
    return "better" if (pair[0] > 0) == (name in HIGHER_IS_BETTER) else "worse"


def best(forecasts: list[Mapping[str, Any]], name: str) -> int | None:
    """The place of the forecast whose mean of a metric is best, None if none has one."""
    known = {place: scores[name] for place, scores in enumerate(forecasts) if scores[name] is not None}
    if name == "sharpness":
        return min(known, key=lambda place: abs(known[place] - 1), default=None)
    sign = -1 if name in HIGHER_IS_BETTER else 1
    return min(known, key=lambda place: sign * known[place], default=None)


def _digits(value: float, name: str) -> int:
    return 4 if "ssim" in name or name == "lpips" or abs(value) < 1 else 2
