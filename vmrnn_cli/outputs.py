"""Results are written beside their target and renamed: an interrupted run leaves no half file and the old one whole.

Who writes holds a lock beside the target: of two runs with one output, the second is refused. The kernel drops the lock
of a process that dies, on whatever host, and the next run in that folder removes what was left half done.
"""

import errno
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vmrnn_cli.errors import InputError, os_failures

try:
    import fcntl
except ImportError:  # of Windows, where files that are open cannot be replaced
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".vmrnn-"  # of temporary files: this, the key of what is written, a random part unless it is the lock
_LOCK = ".lock"
_taking = threading.Lock()
_held: set[Path] = set()  # locks of this process: opening and closing one again would drop it
_cleared: set[Path] = set()  # folders that this process has cleared of leftovers


def given_name(path: Path) -> str:
    """The name of a file or folder as it was given: of a link its own, of "." and ".." that of the folder."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that can neither be written to nor made; `option` names it on the command line.

    Raises:
        InputError: it, or what it would be made in, is a file or read-only.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"cannot write into {folder}: {there} is a file", f"name another {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write into {folder}: {there} is read-only", f"name another {option}")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there. Raises VMRNNError if that fails."""
    with os_failures(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written or must not be, before any work is done for it.

    Raises InputError when the folder is missing or not writable, or `target` is there and `overwrite` is not set, or
    `target` is no regular file: renaming over a device such as /dev/null would destroy it.
    """
    _check_folder_of(target)
    if _is_store(target):
        if not overwrite:
            raise InputError(f"{target} already exists", "pass --overwrite to replace it, or name another output")
        return
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is not a regular file", "name another output file")
    if target.exists() and not overwrite:
        raise InputError(f"{target} already exists", "pass --overwrite to replace it, or name another output")


@contextmanager
def locked(target: Path, *, shared: bool = False, inside: bool = False) -> Iterator[str]:
    """Hold the lock of a target while the block lasts, and yield the key that its temporary files are named by.

    shared : others may write the same at once, as each does it whole and alike
    inside : the target is a folder, and the lock lies in there instead of beside it

    Raises:
        InputError: another run is writing it.
        VMRNNError: its folder cannot be written.
    """
    folder = (target if inside else target.parent).resolve()
    key = (
        secrets.token_hex(8)
        if shared
        else hashlib.sha256(b"." if inside else os.fsencode(target.name)).hexdigest()[:16]
    )
    path = folder / f"{_PREFIX}{key}{_LOCK}"
    with os_failures(f"cannot write {target}"):
        _remove_leftovers_once(folder)
        with _taking:
            file = _take(path)
    if file is None:
        raise InputError(f"another run is writing {target}", "wait for its end, or name another output")
    try:
        yield key
    finally:
        _held.discard(path)
        with suppress(OSError):
            path.unlink()
        os.close(file)


@contextmanager
def atomic_path(target: Path, overwrite: bool, *, shared: bool = False) -> Iterator[Path]:
    """Yield a path beside `target`, with its suffix, that becomes `target` when the block ends without an exception.

    What the block makes there may also be a folder, of a Zarr store.
    A symbolic link is followed, so that the file it names is replaced and not the link. On any exception, Ctrl-C
    included, the temporary file is removed and the old `target` stays.
    Raises InputError as `check_target` and `locked` do, VMRNNError for every OSError of the block (disk full, lost
    drive).
    """
    target = target.resolve()
    check_target(target, overwrite)
    with locked(target, shared=shared) as key:
        check_target(target, overwrite)  # another run may just have ended
        temporary = _temporary_name(target, key)
        try:
            with os_failures(f"cannot write {target}"):
                yield temporary
                check_target(target, overwrite)  # not every drive has locks
                if _is_store(target):  # a folder cannot be renamed over another
                    before = _temporary_name(target, key)
                    target.replace(before)
                    temporary.replace(target)
                    shutil.rmtree(before, ignore_errors=True)
                else:
                    temporary.replace(target)
        finally:
            # After a success it is already renamed. What cannot be removed must not hide the error that brought us
            # here.
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder beside `target`; when the block ends without an exception it becomes `target`.

    Over an existing folder each finished file is renamed into it, replacing its namesake; files that the block did
    not write stay, so that `--overwrite` with the wrong folder destroys nothing else. The block writes plain files.
    Raises InputError and VMRNNError as `atomic_path` does; a folder that is there and empty needs no `overwrite`.
    """
    target = target.resolve()
    _check_folder_of(target)
    with locked(target) as key:
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is a file, not a folder", "name another output folder")
        if target.is_dir() and not overwrite and any(target.iterdir()):
            raise InputError(
                f"folder {target} already exists", "pass --overwrite to replace its files, or name another one"
            )
        temporary = _temporary_name(target, key)
        try:
            with os_failures(f"cannot write {target}"):
                temporary.mkdir()
                yield temporary
                if target.exists():
                    for file in sorted(temporary.iterdir()):
                        file.replace(target / file.name)
                else:
                    temporary.replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of runs that were killed, directly in a folder.

    Theirs are the locks that nobody holds; what has no lock is older than locks are, or outlived it.
    """
    keys: dict[str, list[Path]] = {}
    folder = folder.resolve()  # as the names of our own locks are
    for path in folder.glob(f"{_PREFIX}*"):
        keys.setdefault(path.name.removeprefix(_PREFIX).split(".")[0].split("-")[0], []).append(path)
    for key, left in keys.items():
        lock = folder / f"{_PREFIX}{key}{_LOCK}"
        if lock in _held or fcntl is None:
            continue
        with _taking:
            file = _take(lock)
        if file is None:
            continue
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != lock:
                path.unlink(missing_ok=True)
        _held.discard(lock)
        lock.unlink(missing_ok=True)
        os.close(file)


def _remove_leftovers_once(folder: Path) -> None:
    if folder not in _cleared:
        _cleared.add(folder)
        with suppress(OSError):  # what is in our way will be told when it is
            remove_leftovers(folder)


def _take(lock: Path) -> int | None:
    """Make and lock a file: its descriptor, or None if another process or thread has it."""
    while True:
        if lock in _held:
            return None
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(file)
                return None
            # Some network drives have no locks: there, two runs with one output are found out by its end.
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == lock.stat().st_ino:
                _held.add(lock)
                return file
        os.close(file)  # who had it has just removed it: ours is a file without a name


def _is_store(target: Path) -> bool:
    """Whether a target is a Zarr store, which is a folder."""
    return target.suffix.lower() == ".zarr" and any((target / name).is_file() for name in ("zarr.json", ".zgroup"))


def _check_folder_of(target: Path) -> None:
    folder = target.parent
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cannot write {target}: {folder} is a file", "name another folder")
    if not folder.is_dir():
        raise InputError(
            f"cannot write {target}: there is no folder {folder}", "create the folder, or name another one"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {target}: folder {folder} is read-only", "choose a folder you may write to")


def _temporary_name(target: Path, key: str) -> Path:
    # A name of its own, not one made from the target's: that may already be as long as the file system allows.
    return target.with_name(f"{_PREFIX}{key}-{secrets.token_hex(6)}{target.suffix}")
