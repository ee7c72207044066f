"""What building a network takes. Nothing here imports PyTorch."""

from __future__ import annotations

import dataclasses
import math

LARGEST_VALUE = 1e12  # of data in other units; far below what float32 ends at
LARGEST_FRAME = 2**22  # pixels of a frame that weights were trained for: twice those of Full HD
LARGEST_CLIP = 2**30  # pixels of the context that they were trained for
TRANSFORMS = ("none", "log", "sqrt", "dB")  # of grids' values, as `grids.values` computes them


@dataclasses.dataclass(frozen=True)
class VMRNNConfig:
    """Everything that building a VMRNN needs. Saved as JSON with the weights.

    `image_size`, `context`, `horizon` and what follows are what the weights were trained for; any size and length run.
    """

    variant: str = "B"  # "B": one cell; "D": cells on a pyramid of grids, down and up again
    image_channels: int = 1
    image_size: tuple[int, int] = (64, 64)  # H, W
    patch_size: int = 2  # 2 or 4
    embed_dim: int = 128
    depths: tuple[int, ...] = (6,)  # VSS blocks per cell; for D, of the down path
    depths_up: tuple[int, ...] = ()  # D only, as published: its last entry is the depth of the first up cell
    d_state: int = 16
    drop_path: float = 0.0
    context: int = 10
    horizon: int = 10
    divided_by: float = 1.0  # of gridded data in other units (counts, say): what brings them into [0, 1]
    units: str = ""  # of grids with coordinates that they were trained on; then
    range: tuple[float, ...] = ()  # the values that were 0 and 1 for the network, and
    transform: str = ""  # of the values between, one of TRANSFORMS

    def __post_init__(self) -> None:
        _check_common(self, (self.image_channels, self.embed_dim, self.d_state))
        if self.variant not in ("B", "D"):
            raise ValueError(f"variant must be 'B' or 'D', not {self.variant!r}")
        if self.patch_size not in (2, 4):
            raise ValueError(f"patch_size must be 2 or 4, not {self.patch_size}")
        if self.variant == "B" and (len(self.depths) != 1 or self.depths_up):
            raise ValueError("a VMRNN-B has one cell: give one entry in depths and none in depths_up")
        if self.variant == "D" and (not self.depths or len(self.depths) != len(self.depths_up)):
            raise ValueError("a VMRNN-D has as many cells up as down: depths and depths_up must be of the same length")
        if self.patch_size == 4 and self.embed_dim % 16:
            raise ValueError(f"with patch_size 4, embed_dim must be a multiple of 16, not {self.embed_dim}")

    @property
    def multiple(self) -> int:
        """Frames are padded inside to a multiple of this many pixels."""
        return self.patch_size * (2 ** len(self.depths) if self.variant == "D" else 1)


@dataclasses.dataclass(frozen=True)
class MotionConfig:
    """Everything that building a `motion_network.MotionVMRNN` needs. Saved as JSON with the weights.

    `image_size`, `context`, `horizon` and what follows are what the weights were trained for; any size, length and
    number of channels run.
    """

    image_size: tuple[int, int] = (128, 128)  # H, W
    embed_dim: int = 64  # of the first cell's tokens; the second has twice as many
    depths: tuple[int, ...] = (2, 3)  # VSS blocks of the two cells
    d_state: int = 4
    drop_path: float = 0.0
    detail_dim: int = 32
    decoder_dim: int = 64
    decisiveness: float = 1.0  # above 1, likelier hypotheses get more than their share: sharper, with fewer ghosts
    context: int = 10
    horizon: int = 20
    divided_by: float = 1.0  # of gridded data in other units (counts, say): what brings them into [0, 1]
    units: str = ""  # of grids with coordinates that they were trained on; then
    range: tuple[float, ...] = ()  # the values that were 0 and 1 for the network, and
    transform: str = ""  # of the values between, one of TRANSFORMS

    def __post_init__(self) -> None:
        _check_common(self, (self.embed_dim, self.detail_dim, self.decoder_dim, self.d_state))
        if len(self.depths) != 2:
            raise ValueError(f"depths must be those of two cells, got {self.depths}")
        if not 0.0 < self.decisiveness <= 100.0:
            raise ValueError(f"decisiveness must be above 0 and at most 100, got {self.decisiveness}")

    # What a network over frames has, and this one always has alike.
    variant = "D"
    image_channels = 1  # in which it looks for motion; it draws any number
    patch_size = 8
    multiple = 16
    depths_up = ()


NetworkConfig = VMRNNConfig | MotionConfig


def _check_common(config: NetworkConfig, widths: tuple[int, ...]) -> None:
    """Raise ValueError for what no network can have; `widths` are those that its architecture has."""
    for name, value in vars(config).items():
        if isinstance(value, list):  # as JSON has it
            object.__setattr__(config, name, tuple(value))
    if len(config.image_size) != 2:
        raise ValueError(f"image_size must be height and width, got {config.image_size}")
    if not 1.0 <= config.divided_by <= LARGEST_VALUE:
        raise ValueError(f"divided_by must be from 1 to {LARGEST_VALUE:g}, got {config.divided_by}")
    if not 0.0 <= config.drop_path < 1.0:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {config.drop_path}")
    if config.range and not (
        len(config.range) == 2 and -LARGEST_VALUE <= config.range[0] < config.range[1] <= LARGEST_VALUE
    ):
        raise ValueError(f"range must be the lowest and the highest value, got {config.range}")
    if config.transform not in ("", *TRANSFORMS):
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, got {config.transform!r}")
    numbers, depths = (*widths, *config.image_size, config.context, config.horizon), (*config.depths, *config.depths_up)
    if min(*numbers, *depths) < 1:
        raise ValueError("channels, sizes, widths, depths, context and horizon must be positive")
    if max(depths, default=0) > 1000 or len(config.depths) > 10 or max(numbers) > 2**16:
        raise ValueError(f"no machine holds a network of {config}")
    # Frames and context are what a forecast takes where nothing is said.
    pixels = math.prod(config.image_size)
    if pixels > LARGEST_FRAME or pixels * config.context > LARGEST_CLIP:
        raise ValueError(f"no machine trains on {config.context} frames of {config.image_size}")
