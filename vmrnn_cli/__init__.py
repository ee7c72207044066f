"""Predict the next frames of a video with VMRNN.

from vmrnn_cli import predict

forecast = predict("clip.mp4", frames=20)
forecast.save("out.gif")
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["VMRNN", "InputError", "VMRNNConfig", "VMRNNError", "predict"]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import and `vmrnn --help` does without it, so names come when they are asked for.
    if name == "VMRNN":
        from .sharing import VMRNN

        return VMRNN
    if name in ("InputError", "VMRNNError"):
        from . import errors

        return getattr(errors, name)
    if name == "VMRNNConfig":
        from .config import VMRNNConfig

        return VMRNNConfig
    if name == "predict":
        from .predictor import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
