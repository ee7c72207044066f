"""Predict the next frames of a video with VMRNN.

from vmrnn_cli import predict

forecast = predict("clip.mp4", frames=20)
forecast.save("out.gif")
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "VMRNN", "Forecast", "InputError", "MotionConfig", "MotionVMRNN", "VMRNNConfig", "VMRNNError", "predict", "watch",
]  # fmt: skip

# PyTorch takes seconds to import and `vmrnn --help` does without it, so names come when they are asked for.
_HOMES = {
    "VMRNN": "sharing",
    "Forecast": "forecast",
    "InputError": "errors",
    "MotionConfig": "config",
    "MotionVMRNN": "sharing",
    "VMRNNConfig": "config",
    "VMRNNError": "errors",
    "predict": "predictor",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
