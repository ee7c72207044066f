"""Decoded videos on disk: each is decoded once, into a uint8 array that is read piece by piece.

Notation: T time, C channels, H x W pixels.

The cache is `$VMRNN_CACHE`, else ~/.cache/vmrnn. Its files are named by what was decoded and how. They appear whole, so
that two processes may fill it at once, and an interrupted one goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import os_failure
from ..frames import Size, to_uint8
from ..outputs import atomic_path
from ..video import Clip, open_clip

_DECODING = 2  # raised with every change of what is decoded from the same file


@dataclass(frozen=True)
class Video:
    """A decoded video: a `.npy` file in the cache.

    shape : (T, C, H, W)
    """

    path: Path
    shape: tuple[int, int, int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def frames(self) -> NDArray[np.uint8]:
        """The frames, memory-mapped. Do not keep them: each map holds a file open, and a process may open few."""
        return np.load(self.path, mmap_mode="r")


def cache_folder() -> Path:
    """Where decoded videos are kept."""
    return Path(os.environ.get("VMRNN_CACHE") or Path.home() / ".cache" / "vmrnn")


def content_id(path: Path) -> str:
    """What tells the content of a file from any other.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise os_failure(f"cannot read {path}", error) from error
    return digest.hexdigest()


def find(content: str, channels: int, size: Size) -> Video | None:
    """The decoded video of that content, if the cache has it whole."""
    return open_cached(_cached_path(content, channels, size))


def open_cached(path: Path) -> Video | None:
    """The decoded video in a file of the cache, None unless it is there and whole."""
    try:
        frames = np.load(path, mmap_mode="r")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, EOFError):  # cut short by a crash of the machine
        return None
    return Video(path, frames.shape)


def cached_files() -> list[Path]:
    """The files of all decoded videos, and what killed processes left of some."""
    return sorted((cache_folder() / "clips").glob("*.npy"))


def decode(source: Path, channels: int, size: Size, content: str | None = None) -> Video:
    """The decoded video of a file, from the cache or decoded into it, a frame at a time.

    channels, size : as in `open_clip`
    content : what identifies the content, None to read the file for it

    Raises:
        InputError: the video cannot be read.
        VMRNNError: the cache cannot be written.
    """
    content = content or content_id(source)
    video = find(content, channels, size)
    if video is not None:
        return video
    path = _cached_path(content, channels, size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_failure(
            f"cannot make the cache folder {path.parent} (VMRNN_CACHE)", error, "set VMRNN_CACHE to another"
        ) from error
    with (
        open_clip(source, channels=channels, size=size) as clip,
        atomic_path(path, overwrite=True) as temporary,
        temporary.open("wb") as file,
    ):
        shape = _write_frames(clip, file)
    return Video(path, shape)


def _cached_path(content: str, channels: int, size: Size) -> Path:
    key = hashlib.sha256(f"{_DECODING}|{content}|{channels}|{size}".encode()).hexdigest()[:32]
    return cache_folder() / "clips" / f"{key}.npy"


def _write_frames(clip: Clip, file: BinaryIO) -> tuple[int, int, int, int]:
    """Write frames as a `.npy` of shape (T, C, H, W), which is returned. Only one of them is in memory."""
    C, H, W = clip.frame_shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (0, C, H, W)}
    np.lib.format.write_array_header_1_0(file, header)
    T = 0
    for frame in clip:
        file.write(to_uint8(frame).tobytes())
        T += 1
    file.seek(0)  # NumPy leaves room in the header for the first axis to grow
    np.lib.format.write_array_header_1_0(file, header | {"shape": (T, C, H, W)})
    return T, C, H, W
