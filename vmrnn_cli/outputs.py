"""Results are written beside their target and renamed: an interrupted run leaves no half file and the old one whole."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vmrnn_cli.errors import InputError, os_failure

_PREFIX = ".vmrnn-"  # of temporary files


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
    with _machine_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written or must not be, before any work is done for it.

    Raises InputError when the folder is missing or not writable, or `target` is there and `overwrite` is not set, or
    `target` is no regular file: renaming over a device such as /dev/null would destroy it.
    """
    _check_folder_of(target)
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is not a regular file", "name another output file")
    if target.exists() and not overwrite:
        raise InputError(f"{target} already exists", "pass --overwrite to replace it, or name another output")


@contextmanager
def atomic_path(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a path beside `target`, with its suffix, that becomes `target` when the block ends without an exception.

    A symbolic link is followed, so that the file it names is replaced and not the link. On any exception, Ctrl-C
    included, the temporary file is removed and the old `target` stays.
    Raises InputError as `check_target` does, VMRNNError for every OSError of the block (disk full, lost drive).
    """
    target = target.resolve()
    check_target(target, overwrite)
    temporary = _temporary_name(target)
    try:
        with _machine_failures(target):
            yield temporary
            temporary.replace(target)
    finally:
        # After a success it is already renamed. What cannot be removed must not hide the error that brought us here.
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
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, not a folder", "name another output folder")
    if target.is_dir() and not overwrite and any(target.iterdir()):
        raise InputError(
            f"folder {target} already exists", "pass --overwrite to replace its files, or name another one"
        )
    temporary = _temporary_name(target)
    try:
        with _machine_failures(target):
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
    """Remove the temporary files that killed processes left in a folder and below. Nobody else may be writing there."""
    for path in folder.rglob(f"{_PREFIX}*"):
        if path.is_file():
            path.unlink()


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


def _temporary_name(target: Path) -> Path:
    # A name of its own, not one made from the target's: that may already be as long as the file system allows.
    return target.with_name(f"{_PREFIX}{secrets.token_hex(6)}{target.suffix}")


@contextmanager
def _machine_failures(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise os_failure(f"cannot write {target}", error) from error
