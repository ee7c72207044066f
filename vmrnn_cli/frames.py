"""Frames: their one type, float32 (C, H, W) in [0, 1], the conversions to and from it, and reading images and arrays.

NaN stands for a value that is missing, and for nothing else. What numbers mean is for `readings` to say.

Notation: T time, C channels (1 gray, 3 RGB; arrays may have others), H height, W width.
"""

import contextlib
import itertools
import math
import os
import re
import statistics
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmrnn_cli import interrupts
from vmrnn_cli.errors import InputError, os_failure
from vmrnn_cli.readings import UNDECLARED, Declared, Units, fill, in_unit, one_clip, units_of

Frame = NDArray[np.float32]  # (C, H, W) in [0, 1], NaN where a value is missing
Size = tuple[int, int] | int | None  # (H, W); or the shorter side; or as it is

DEFAULT_FPS = 10.0  # of what has no rate of its own: images, arrays, clips of a data set
LONGEST_SIDE = 16384  # pixels
IN_MEMORY = "the array"  # the name of one that comes from Python
VIDEO_SUFFIXES = {
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".ts", ".m2ts", ".mts",
    ".ogv", ".3gp", ".asf", ".vob", ".y4m", ".apng",
}  # fmt: skip
_GDAL_NODATA, _BITS, _SAMPLE_FORMAT = 42113, 258, 339  # tags of TIFF
_LAYOUT_KEYS, _MISSING_KEYS = ("layout",), ("missing", "fill_value", "_FillValue", "missing_value")  # of an .npz
_NUMBER = re.compile(r"(\d+)")
_MANY = np.zeros(2)
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
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
    """The images of a folder in natural order.

    Raises InputError if there is none, or if they are several series, or if it is a folder of clips.
    """
    files = sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")),
        key=natural_order,
    )
    if len(files) < 2 and (clips := sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)):
        raise InputError(
            f"folder {folder} is taken for one clip, of its images, and holds clips such as {clips[0].name}",
            f"name those: {folder}/*{clips[0].suffix}",
        )
    if not files:
        raise InputError(f"folder {folder} holds no images", f"give one with {', '.join(sorted(IMAGE_SUFFIXES))} files")
    _check_one_series(folder, files)
    return files


def _check_one_series(folder: Path, files: list[Path]) -> None:
    """Refuse images of several series: left_0, left_1 and right_0, right_1; or cam1_0, cam1_1 and cam2_0, cam2_1."""
    series = _series(files)
    first = [members[0] for members in series if len(members) > 1]
    if len(first) == 1:
        first = _counted_anew(max(series, key=len)) or first
    if len(first) > 1:
        one, other = (file.name for file in first[:2])
        raise InputError(
            f"folder {folder} holds several series of images, as of {one} and of {other}: one after the other they are "
            "no clip",
            "put each into a folder of its own",
        )


def _series(files: list[Path]) -> list[list[Path]]:
    """The images, those together whose names differ in numbers only."""
    series: dict[str, list[Path]] = {}
    for file in files:
        series.setdefault(_NUMBER.sub("#", file.name), []).append(file)
    return list(series.values())


def _differing_numbers(files: list[Path]) -> list[tuple[str, ...]]:
    """The numbers in the names of a series, a tuple over the files for each place where they differ."""
    columns = zip(*(_NUMBER.findall(file.name) for file in files), strict=True)
    return [column for column in columns if len(set(column)) > 1]


def _counted_anew(files: list[Path]) -> list[Path]:
    """Two images that have the same last number after different others, if there are: the counting began anew."""
    columns = _differing_numbers(files)
    if len(columns) < 2 or any(_is_date(column[0]) for column in columns):  # after a date, the time of the day does so
        return []
    first: dict[str, Path] = {}
    for number, file in zip(columns[-1], files, strict=True):
        if first.setdefault(number, file) is not file:
            return [first[number], file]
    return []


def series_note(files: list[Path]) -> str:
    """A line on what a series of images lacks, or has besides; "" for nothing."""
    series = _series(files)
    main = max(series, key=len)
    if len(series) > 1:
        odd = next(members[0] for members in series if members is not main)
        besides = f"{odd} is taken for a frame of the series {main[0].name} ... {main[-1].name}"
        return besides if len(main) > 1 else ""
    columns = _differing_numbers(files)
    if len(columns) != 1 or _is_date(columns[0][0]):
        return ""
    counted = [int(number) for number in columns[0]]
    step = statistics.mode(after - before for before, after in itertools.pairwise(counted))
    lacking = sorted(set(range(counted[0], counted[-1], max(1, step))) - set(counted))
    if not lacking:
        return ""
    which = ", ".join(map(str, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
    return f"{files[0].parent}: of {files[0].name} ... {files[-1].name}, {len(lacking)} are missing: {which}"


def _is_date(number: str) -> bool:
    return len(number) >= 8 or (len(number) == 4 and number[:2] in ("19", "20"))


def open_images(
    folder: Path,
    files: list[Path],
    channels: int,
    size: Size,
    fps: float,
    start: float,
    declared: Declared = UNDECLARED,
) -> tuple[Iterator[Frame], list[str]]:
    """The folder's images, and lines on what was taken for granted, all there with the first image.

    Arguments and errors as in `vmrnn_cli.video.open_clip`.
    """
    check_picture_channels(folder, channels)
    notes = [note for note in (series_note(files),) if note]
    files = files[_frames_to_skip(str(folder), len(files), fps, start) :]
    return _image_frames(files, channels, size, declared, notes), notes


def natural_order(file: Path) -> list[tuple[int, str]]:
    """Sort key: 2 before 10. Text and numbers alternate, so equal positions always compare equal kinds."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in _NUMBER.split(file.name.lower())]


def _image_frames(
    files: list[Path], channels: int, size: Size, declared: Declared, notes: list[str]
) -> Iterator[Frame]:
    expected = None
    for file in files:
        frame, note = _read_image(file, declared)
        if expected is None and note:
            notes.append(note)
        expected = expected or frame.shape[1:]
        if frame.shape[1:] != expected:
            (H, W), (first_H, first_W) = frame.shape[1:], expected
            raise InputError(f"{file} is {W}x{H}, but {files[0].name} {first_W}x{first_H}", "give images of one size")
        yield _resized(_with_channels(frame, channels), size)


def _read_image(file: Path, declared: Declared) -> tuple[Frame, str]:
    """Return (1 or 3, H, W) in [0, 1], upright, transparency over black; and what was taken for granted."""
    with interrupts.deferred():
        from PIL import Image, ImageOps  # not everything that reads arrays has it

    if file.stat().st_size == 0:
        raise InputError(f"cannot read image {file}: it is empty", "remove or replace it")
    try:
        # Opened here: given a name, Pillow 13 maps uncompressed TIFFs into memory and garbles the rotated ones.
        with unheard(), file.open("rb") as stream, Image.open(stream) as opened:
            stored, missing = _stored_as(opened)
            image = ImageOps.exif_transpose(opened)
            if stored is None:
                if image.has_transparency_data:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
            else:
                pixels = np.asarray(image).astype(stored)  # (H, W); unsigned numbers of 32 bits come as signed ones
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise os_failure(f"cannot read image {file}", error) from error
        reason = "it is no image, or a damaged one" if isinstance(error, Image.UnidentifiedImageError) else error
        raise InputError(f"cannot read image {file}: {reason}", "remove or replace it") from error
    frame = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # (C, H, W)
    declared, note = declared.over(Declared(missing=missing)), ""
    if stored == np.uint16:
        declared = declared.over(Declared(range=(0, 65535)))
    elif stored in (np.int32, np.uint32) and not declared.range and frame.min() >= 0 and frame.max() <= 255:
        declared = declared.over(Declared(range=(0, 255)))
        note = f"{file} holds {stored} values from 0 to 255, taken for their range; --range says otherwise"
    return in_unit(frame, units_of(str(file), frame, declared), str(file)), note


def _stored_as(image: Any) -> tuple[np.dtype[Any] | None, float | None]:
    """The type of a gray image's numbers, None where they are drawn as 8 bits; and its value that stands for none."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    transparent = image.info.get("transparency") if image.mode in ("L", "I", "I;16") else None
    missing = float(transparent) if isinstance(transparent, int) else _number(tags.get(_GDAL_NODATA))
    if image.mode == "L":
        return (None if missing is None else np.dtype(np.uint8)), missing
    if image.mode == "F":
        return np.dtype(np.float32), missing
    if not image.mode.startswith("I"):
        return None, None
    bits, signed = (tags.get(_BITS, (16,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0] == 2)
    return np.dtype(f"{'int' if signed else 'uint'}{bits if bits in (8, 16, 32) else 16}"), missing


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip(" \0"))
    except ValueError:
        return None


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Let neither Pillow nor the C libraries below it speak on stderr: what cannot be read is told by an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            stderr = os.dup(2)
        except OSError:  # closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(nowhere)


class OpenArray(NamedTuple):
    """The frames of an array; what its values mean; and what was taken for granted, a line each."""

    frames: Iterator[Frame]
    units: Units
    notes: tuple[str, ...]


def open_array(
    name: str, array: NDArray[Any], channels: int | None, size: Size, fps: float, start: float,
    divided_by: float | None, declared: Declared = UNDECLARED,
) -> OpenArray:  # fmt: skip
    """The frames of an array, which may exceed 1 where they are counts; else as `video.open_clip`.

    channels : None for those it has.
    divided_by : of counts; None to leave them as they are.
    """
    found = one_clip(name, array, declared, channels)
    frames = found.clips  # (T, C, H, W)
    C = frames.shape[1]
    channels = C if channels is None else channels
    if channels != C and (C, channels) not in ((1, 3), (3, 1)):
        raise InputError(
            f"{name} has {C} channels, shaped {array.shape}, and {channels} are wanted",
            f"store it as (T, {channels}, H, W), or choose weights for {C} channels",
        )
    skip = _frames_to_skip(name, len(frames), fps, start)
    units = units_of(name, frames, declared, divided_by)
    notes = tuple(note for note in (found.note, units.note) if note)
    return OpenArray(_array_frames(name, frames, skip, channels, size, units), units, notes)


def is_array(path: Path) -> bool:
    """Whether a file is an .npy or .npz by its content, whatever its name."""
    with path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return True
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            return any(name.endswith(".npy") for name in members.namelist())
    return False


class Arrays(NamedTuple):
    """The arrays of a file by name, and what it says of them beside: fps is None where it does not."""

    arrays: dict[str, NDArray[Any]]
    declared: Declared = UNDECLARED
    fps: float | None = None


def read_arrays(path: Path) -> Arrays:
    """The arrays of an .npz by name, or only its "frames"; or that of an .npy, memory-mapped, under this name.

    Of an .npz also what it declares: `fps`, `layout`, `missing` or `fill_value`, and the `mask` of its frames, True
    where they are missing.

    Raises InputError for anything else. Pickled objects are never loaded: they can run code.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of headers that old versions of Python wrote
            if file.read(2) != b"PK":  # no zip file, so no .npz: only a .npy can be memory-mapped
                return Arrays({"frames": np.load(path, mmap_mode="r", allow_pickle=False)}, _declared_by_name(path))
            file.seek(0)
            with np.load(file, allow_pickle=False) as members:
                beside = {"frames", "fps", "mask", *_LAYOUT_KEYS, *_MISSING_KEYS}  # what else is there may be anything
                wanted = beside & set(members.files) if "frames" in members.files else members.files
                everything = {name: members[name] for name in members.files if name in wanted}
    except Exception as error:  # damaged files make NumPy and zipfile raise anything, and bz2 an OSError without number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = re.sub(r": <[\w.]+ object at 0x\w+>", "", str(error))  # Python's own words for a damaged header
        raise InputError(
            f"{path} is no array of numbers: {reason}", "write it with numpy.save or numpy.savez"
        ) from error
    arrays = {name: member for name, member in everything.items() if isinstance(member, np.ndarray)}  # else bytes
    return _declarations(path, arrays)


def _declarations(path: Path, arrays: dict[str, NDArray[Any]]) -> Arrays:
    """Take what an .npz says of its arrays from among them."""
    said = {
        name: arrays.pop(name) for name in ("fps", *_LAYOUT_KEYS, *_MISSING_KEYS) if arrays.get(name, _MANY).size == 1
    }
    fps = _number(said["fps"].item()) if "fps" in said else None
    if fps is not None and not 1e-4 <= fps <= 1e5:
        raise InputError(f"{path} says fps={fps:g}, which is no frame rate", "correct it, or leave it out")
    layout = next((str(said[name].item()) for name in _LAYOUT_KEYS if name in said), "")
    missing = next((_number(said[name].item()) for name in _MISSING_KEYS if name in said), None)
    if "mask" in arrays and len(arrays) == 2:
        mask = arrays.pop("mask")
        ((name, frames),) = arrays.items()
        if mask.dtype.kind != "b" or mask.shape != frames.shape:
            raise InputError(
                f"{path}: its mask is {mask.dtype} {mask.shape} for {name} {frames.shape}",
                "give a bool for each value, True where it is missing",
            )
        arrays[name] = np.ma.array(frames, mask=mask)
    return Arrays(arrays, _declared_by_name(path).over(Declared(layout, missing=missing)), fps)


def _declared_by_name(path: Path) -> Declared:
    """What the names of published files say of them."""
    return Declared("TNHW" if path.name.startswith("mnist_test_seq") else "")


def only_array(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The array called "frames", or the only one. Raises InputError if there is neither."""
    if "frames" in arrays:
        return arrays["frames"]
    if "input_raw_data" in arrays:
        raise InputError(
            f"{path} is PredRNN's Moving MNIST (input_raw_data, clips, dims), which is not read",
            'save its clips as "frames", (N, T, H, W)',
        )
    if len(arrays) != 1:
        raise InputError(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)})", 'name the clip\'s "frames"')
    return next(iter(arrays.values()))


def _array_frames(
    name: str, frames: NDArray[Any], skip: int, channels: int, size: Size, units: Units
) -> Iterator[Frame]:
    for index in range(skip, len(frames)):
        frame = in_unit(frames[index], units, f"{name}, frame {index},")  # (C, H, W)
        yield _resized(_with_channels(frame, channels), size)


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

    def scaled(planes: Frame, by: Any) -> Frame:
        pictures = [Image.fromarray(plane).resize((size[1], size[0]), by) for plane in planes]
        return np.stack([np.asarray(picture) for picture in pictures])  # (C, H, W)

    missing = np.isnan(frame)
    (known,) = fill(frame[None])
    resized = scaled(known, Image.Resampling.LANCZOS).clip(0, max(1, known.max()))
    if missing.any():  # what half of it or more is made of
        resized[scaled(missing.astype(np.float32), Image.Resampling.BOX) >= 0.5] = np.nan
    return resized


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
