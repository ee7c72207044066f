"""Decoded videos on disk: each is decoded once, into a uint8 array that is read piece by piece.

Notation: T time, C channels, H x W pixels.

The cache is `$VMRNN_CACHE`, else ~/.cache/vmrnn. Its files are named by what was decoded and how. They appear whole, so
that two processes may fill it at once, and an interrupted one goes on where it was. After the array there is a line of
JSON with a checksum of it and with what was said of the video; what does not fit its checksum is decoded anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import VMRNNError, os_failures
from ..frames import Size, to_uint8
from ..outputs import atomic_path
from ..video import Clip, Source

_DECODING = 3  # raised with every change of what is decoded from the same file


@dataclass(frozen=True)
class Video:
    """A decoded video: a `.npy` file in the cache.

    shape : (T, C, H, W)
    notes : what people should know of the video: where it is damaged, what of it was taken
    """

    path: Path
    shape: tuple[int, int, int, int]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def frames(self) -> NDArray[np.uint8]:
        """The frames, memory-mapped. Do not keep them: each map holds a file open, and a process may open few."""
        return np.load(self.path, mmap_mode="r")


def cache_folder() -> Path:
    """Where decoded videos are kept. Raises VMRNNError where that is not said and there is no home folder."""
    try:
        return Path(os.environ.get("VMRNN_CACHE") or Path.home() / ".cache" / "vmrnn")
    except RuntimeError as error:
        raise VMRNNError("there is no home folder for decoded videos", "set VMRNN_CACHE to a folder") from error


def content_id(path: Path) -> str:
    """What tells the content of a file from any other.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with os_failures(f"cannot read {path}"), path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def find(content: str, channels: int, size: Size) -> Video | None:
    """The decoded video of that content, if the cache has it whole."""
    return open_cached(_cached_path(content, channels, size))


def open_cached(path: Path, *, verify: bool = True) -> Video | None:
    """The decoded video in a file of the cache, None unless it is there and whole; to `verify` is to read it all."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                return None
            shape, in_columns, kind = np.lib.format.read_array_header_1_0(file)
            size = int(np.prod(shape, dtype=object))
            if in_columns or kind != np.uint8 or len(shape) != 4 or path.stat().st_size < size:
                return None
            if not verify:
                return Video(path, shape)
            checksum = 0
            while size and (block := file.read(min(size, 2**20))):
                checksum, size = zlib.crc32(block, checksum), size - len(block)
            end = json.loads(file.read(2**20))
            if size or end["crc32"] != checksum or tuple(end["shape"]) != shape:
                return None
            return Video(path, shape, tuple(map(str, end["notes"])))
    except Exception:  # whatever damage makes of a header
        return None


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
    with os_failures(f"cannot make the cache folder {path.parent} (VMRNN_CACHE)", "set VMRNN_CACHE to another"):
        path.parent.mkdir(parents=True, exist_ok=True)
    opened = Source(source)
    opened.look_through()
    with (
        opened.open(channels=channels, size=size) as clip,
        atomic_path(path, overwrite=True, shared=True) as temporary,
        temporary.open("wb") as file,
    ):
        shape, checksum = _write_frames(clip, file)
        notes = [*clip.notes, *clip.flaws()]
        file.seek(0, os.SEEK_END)
        file.write(json.dumps({"crc32": checksum, "shape": shape, "notes": notes}).encode())
    return Video(path, shape, tuple(notes))


def _cached_path(content: str, channels: int, size: Size) -> Path:
    key = hashlib.sha256(f"{_DECODING}|{content}|{channels}|{size}".encode()).hexdigest()[:32]
    return cache_folder() / "clips" / f"{key}.npy"


def _write_frames(clip: Clip, file: BinaryIO) -> tuple[tuple[int, int, int, int], int]:
    """Write frames as a `.npy`, one at a time: its shape (T, C, H, W), and the CRC-32 of its values."""
    C, H, W = clip.frame_shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (0, C, H, W)}
    np.lib.format.write_array_header_1_0(file, header)
    T = checksum = 0
    for frame in clip:
        values = to_uint8(frame).tobytes()
        file.write(values)
        T, checksum = T + 1, zlib.crc32(values, checksum)
    file.seek(0)  # NumPy leaves room in the header for the first axis to grow
    np.lib.format.write_array_header_1_0(file, header | {"shape": (T, C, H, W)})
    return (T, C, H, W), checksum
