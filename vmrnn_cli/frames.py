"""Frames: their one type, float32 (C, H, W) in [0, 1], the conversions to and from it, and reading images and arrays.

Notation: T time, C channels (1 gray, 3 RGB; arrays may have others), H height, W width.
"""

import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmrnn_cli import interrupts
from vmrnn_cli.errors import InputError

Frame = NDArray[np.float32]  # (C, H, W) in [0, 1]
Size = tuple[int, int] | int | None  # (H, W); or the shorter side; or as it is

DEFAULT_FPS = 10.0  # of what has no rate of its own: images, arrays, clips of a data set
LONGEST_SIDE = 16384  # pixels
IN_MEMORY = "the array"  # the name of one that comes from Python
VIDEO_SUFFIXES = {
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".ts", ".m2ts", ".mts",
    ".ogv", ".3gp", ".asf", ".vob", ".y4m", ".apng",
}  # fmt: skip
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as Pillow and ffmpeg use for RGB -> gray


def to_float(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Frames of any shape as float32: uint8 divided by 255, and so in [0, 1]; floats as they are."""
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / np.float32(255)
    return frames.astype(np.float32, copy=False)


def to_uint8(frames: NDArray[np.float32], peak: float = 1.0) -> NDArray[np.uint8]:
    """Frames of any shape as uint8: [0, `peak`] is mapped to 0 ... 255, what lies outside is cut off."""
    levels = frames * (255 / peak)
    np.rint(levels, out=levels)
    return levels.clip(0, 255, out=levels).astype(np.uint8)


def divisor(frames: NDArray[Any], divided_by: float | None) -> float:
    """What brings an array's values into [0, 1]: `divided_by` (None: their maximum), 1 where they lie there already."""
    if frames.dtype == np.uint8 or divided_by == 1.0:
        return 1.0
    highest = float(np.fmax.reduce(frames, axis=None))  # a NaN is found out when its frame is asked for
    return 1.0 if not highest > 1 else highest if divided_by is None else divided_by


def parse_size(size: str | int | Sequence[int]) -> Size:
    """What `--size` says: "native", "S" for a shorter side of S, "WxH"; from Python also a number, or (H, W).

    Raises InputError for anything else.
    """
    if isinstance(size, (int, np.integer)):
        return int(size)
    if not isinstance(size, str):
        height, width = size
        return int(height), int(width)
    if size == "native":
        return None
    try:
        sides = [int(side) for side in size.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise InputError(f"'{size}' is no frame size", "write native, a number such as 128, or WIDTHxHEIGHT")
    return sides[0] if len(sides) == 1 else (sides[1], sides[0])


def parse_side(size: str | None) -> int | None:
    """`--size` where clips are cut to squares: "S" or "SxS", None for none. Raises InputError for anything else."""
    if size is None:
        return None
    sides = parse_size(size)
    side = sides if isinstance(sides, int) else sides[0] if sides and sides[0] == sides[1] else 0
    if not 2 <= side <= LONGEST_SIDE:
        raise InputError(f"clips cannot be cut to squares of '{size}'", f"give a side of 2 to {LONGEST_SIDE} pixels")
    return side


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order. Raises InputError if there is none, or if it is a folder of clips."""
    files = sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith(".")),
        key=_natural_order,
    )
    if len(files) < 2 and (clips := sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)):
        raise InputError(
            f"folder {folder} is taken for one clip, of its images, and holds clips such as {clips[0].name}",
            f"name those: {folder}/*{clips[0].suffix}",
        )
    if not files:
        raise InputError(
            f"folder {folder} holds no images", f"give one with {', '.join(sorted(_IMAGE_SUFFIXES))} files"
        )
    return files


def open_images(
    folder: Path, files: list[Path], channels: int, size: Size, fps: float, start: float
) -> Iterator[Frame]:
    """Yield the folder's images. Arguments and errors as in `vmrnn_cli.video.open_clip`."""
    check_picture_channels(folder, channels)
    return _image_frames(files[_frames_to_skip(str(folder), len(files), fps, start) :], channels, size)


def _natural_order(file: Path) -> list[tuple[int, str]]:
    """Sort key: 2 before 10. Text and numbers alternate, so equal positions always compare equal kinds."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name.lower())]


def _image_frames(files: list[Path], channels: int, size: Size) -> Iterator[Frame]:
    expected = None
    for file in files:
        frame = _read_image(file)
        expected = expected or frame.shape[1:]
        if frame.shape[1:] != expected:
            (H, W), (first_H, first_W) = frame.shape[1:], expected
            raise InputError(f"{file} is {W}x{H}, but {files[0].name} {first_W}x{first_H}", "give images of one size")
        yield _resized(_with_channels(frame, channels), size)


def _read_image(file: Path) -> Frame:
    """Return (1 or 3, H, W) in [0, 1]: upright, transparency over black, 16-bit gray at full precision."""
    with interrupts.deferred():
        from PIL import Image, ImageOps  # not everything that reads arrays has it

    try:
        # Opened here: given a name, Pillow 13 maps uncompressed TIFFs into memory and garbles the rotated ones.
        with file.open("rb") as stream, Image.open(stream) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            if image.mode == "F":
                pixels = np.asarray(image, np.float32)  # (H, W)
            elif image.mode.startswith("I"):
                pixels = np.asarray(image).astype(np.float32) / np.float32(65535)  # (H, W)
            else:
                pixels = to_float(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read image {file}: {error}", "remove or replace it") from error
    frame = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # (C, H, W)
    return checked(frame, str(file))


def open_array(
    name: str, array: NDArray[Any], channels: int | None, size: Size, fps: float, start: float, divided_by: float | None
) -> tuple[Iterator[Frame], float]:
    """The frames of an array, and what they are divided by; else as `video.open_clip`. They may exceed 1 after that.

    channels : None for those it has.
    divided_by : of floats that exceed 1; None for their maximum.
    """
    if array.dtype.newbyteorder("=") not in (np.uint8, np.float16, np.float32, np.float64):
        raise InputError(f"{name} holds {array.dtype} values", "store frames as uint8, or as float in [0, 1]")
    if array.ndim not in (3, 4):
        raise InputError(f"{name} is shaped {array.shape}", "store frames as (T, H, W) or (T, C, H, W)")
    if array.size == 0:
        raise InputError(f"{name} is empty, shaped {array.shape}", "store at least one frame")
    frames = array[:, None] if array.ndim == 3 else array  # (T, C, H, W)
    found = frames.shape[1]
    if found > 4 and found != channels and frames.shape[-1] in (1, 3, 4):
        raise InputError(f"{name} is shaped {array.shape}, channels last", "store frames as (T, C, H, W)")
    channels = found if channels is None else channels
    if found != channels and (found, channels) not in ((1, 3), (3, 1)):
        raise InputError(
            f"{name} has {found} channels, shaped {array.shape}, and {channels} are wanted",
            f"store it as (T, {channels}, H, W), or choose weights for {found} channels",
        )
    skip = _frames_to_skip(name, len(frames), fps, start)
    scale = divisor(frames, divided_by)
    return _array_frames(name, frames, skip, channels, size, scale), scale


def is_array(path: Path) -> bool:
    """Whether a file is an .npy or .npz by its content; by its name, if that is nothing else that is known."""
    with path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return True
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            return any(name.endswith(".npy") for name in members.namelist())
    return False


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz by name, or only its "frames"; or that of an .npy, memory-mapped, under this name.

    Raises InputError for anything else. Pickled objects are never loaded: they can run code.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # no zip file, so no .npz: only a .npy can be memory-mapped
                return {"frames": np.load(path, mmap_mode="r", allow_pickle=False)}
            file.seek(0)
            with np.load(file, allow_pickle=False) as members:
                wanted = (
                    ["frames"] if "frames" in members.files else members.files
                )  # what else is there may be anything
                everything = {name: members[name] for name in wanted}
    except Exception as error:  # damaged files make NumPy and zipfile raise anything, and bz2 an OSError without number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{path} is no array of numbers: {error}", "write it with numpy.save or numpy.savez"
        ) from error
    return {name: member for name, member in everything.items() if isinstance(member, np.ndarray)}  # else bytes


def only_array(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The array called "frames", or the only one. Raises InputError if there is neither."""
    if "frames" in arrays:
        return arrays["frames"]
    if len(arrays) != 1:
        raise InputError(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)})", 'name the clip\'s "frames"')
    return next(iter(arrays.values()))


def _array_frames(
    name: str, frames: NDArray[Any], skip: int, channels: int, size: Size, scale: float
) -> Iterator[Frame]:
    for index in range(skip, len(frames)):
        frame, where = frames[index], f"{name}, frame {index},"  # (C, H, W)
        if scale == 1.0:
            frame = checked(frame, where)
        else:
            frame = checked(to_float(frame) / np.float32(scale), where, highest=math.inf)
        yield _resized(_with_channels(frame, channels), size)


def checked(frames: NDArray[Any], name: str, highest: float = 1.0) -> NDArray[np.float32]:
    """Frames of any shape as float32. Raises InputError unless floats are from 0 to `highest`."""
    if frames.dtype == np.uint8:
        return to_float(frames)
    low, high = float(frames.min()), float(frames.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name} holds NaN or infinite values", "replace them")
    if low < 0 or high > highest:
        raise InputError(f"{name} holds values from {low:.9g} to {high:.9g}", "scale the data to [0, 1]")
    return to_float(frames)


def _frames_to_skip(name: str, frames: int, fps: float, start: float) -> int:
    skip = round(start * fps)
    if skip >= frames:
        raise InputError(
            f"{name} has {frames} frame(s), {fps:g} a second: nothing at {start:g} s", "pass a smaller --start"
        )
    return skip


def _with_channels(frame: Frame, channels: int) -> Frame:
    """Return (channels, H, W) from (C, H, W), where C is `channels`, or one is 1 and the other 3."""
    if len(frame) == channels:
        return frame
    if channels == 1:
        return np.tensordot(_LUMA, frame, axes=1)[None]  # (1, H, W)
    return np.repeat(frame, channels, axis=0)


def _resized(frame: Frame, size: Size) -> Frame:
    _, H, W = frame.shape
    if isinstance(size, int):
        size = (_even(H / W * size), size) if W < H else (size, _even(W / H * size))
    if size is None or size == (H, W):
        return frame
    with interrupts.deferred():
        from PIL import Image

    planes = [Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.LANCZOS) for plane in frame]
    return np.stack([np.asarray(plane) for plane in planes]).clip(0, max(1, frame.max()))  # (C, H, W)


def _even(side: float) -> int:
    """The nearest even number, at least 2; halfway up, as ffmpeg rounds."""
    return max(2, 2 * math.floor(side / 2 + 0.5))


def past_the_end(path: Path, start: float, duration: float | None) -> InputError:
    """Return the error of a clip that lasts `duration` seconds, if that is known, and is asked for more at `start`."""
    lasts = f"lasts {duration:.2f} s:" if duration else "has"
    return InputError(f"{path} {lasts} nothing at {start:g} s", "pass a smaller --start")


def check_picture_channels(path: Path, channels: int) -> None:
    """Raise InputError for anything but gray or RGB: all that images and videos hold."""
    if channels not in (1, 3):
        raise InputError(
            f"{path} has gray or colour frames, and {channels} channels are wanted",
            "give an array (.npy or .npz) shaped (T, C, H, W), or weights for 1 or 3 channels",
        )
