"""Download the public data sets, verified where a checksum is known.

A file appears under its name only when it is whole, and verified. What is whole is not downloaded again, and what was
interrupted is kept as `NAME.part`, so that a repeated call goes on where the last one stopped.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import network
from ..errors import InputError, VMRNNError, os_failures
from ..outputs import atomic_path

if TYPE_CHECKING:
    from requests import Response
    from rich.progress import Progress

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 2**15  # bytes; what is lost when a connection breaks
URL_VARIABLE = "VMRNN_DATA_URL"  # a mirror with one folder for each data set, instead of the sites below


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    site : URL of the folder it lies in
    name : its name there
    checksum : "md5:..." or "sha256:..."; None where none is known
    member : the one file wanted of a zip file, which is then removed; None: the file is wanted as it is
    """

    site: str
    name: str
    checksum: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class PublishedFiles:
    """A data set on the network: its files, and on which terms they may be used."""

    files: tuple[RemoteFile, ...]
    licence: str


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
SOURCES = {
    "moving-mnist": PublishedFiles(
        (
            RemoteFile(_MNIST, "train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            RemoteFile(_MNIST, "t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
            RemoteFile(
                "http://www.cs.toronto.edu/~nitish/unsupervised_video",
                "mnist_test_seq.npy",
                "md5:be083ec986bfe91a449d63653c411eb2",
            ),
        ),
        "MNIST by Y. LeCun and C. Cortes, CC BY-SA 3.0; Moving MNIST: cite Srivastava et al., ICML 2015",
    ),
    "kth": PublishedFiles(
        tuple(
            RemoteFile("https://www.csc.kth.se/cvap/actions", f"{action}.zip")
            for action in ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
        ),
        "for non-commercial use; cite Schuldt, Laptev and Caputo, ICPR 2004",
    ),
    "taxibj": PublishedFiles(
        (
            RemoteFile(
                "https://github.com/chengtan9907/OpenSTL/releases/download/v0.1.0",
                "taxibj_dataset.zip",
                member="dataset.npz",
            ),
        ),
        "none is stated; cite Zhang, Zheng and Qi, AAAI 2017",
    ),
}


def download(what: str, folder: Path, say: Callable[[str], None]) -> None:
    """Put the files of data set `what` into `folder`, which is made if need be.

    say : takes a line for each file, with its checksum where that could not be verified, and one with the licence

    Raises:
        InputError: there is no such data set, or `folder` is a file.
        VMRNNError: the network, the server or the disk fails, or a file is not the one that was published.
    """
    if what not in SOURCES:
        raise InputError(f"'{what}' cannot be downloaded", f"use {', '.join(SOURCES)}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", "name a folder")
    source = SOURCES[what]
    say(f"licence: {source.licence}")
    with os_failures(f"cannot write into {folder}"):
        for file in source.files:
            say(_fetch(file, what, folder))


def _fetch(file: RemoteFile, what: str, folder: Path) -> str:
    """Download one file unless it is there, and say in a line what was done."""
    import pooch

    target = folder / (file.member or file.name)
    if file.member and target.exists():
        return f"{target}: already there, unverified"
    there = (folder / file.name).exists()
    path = _retrieve(file, _url(file, what), folder)
    done = "already there" if there else "downloaded"
    if file.checksum:
        trust = f"verified, {file.checksum}"
    else:
        trust = f"unverified, as no checksum is known; sha256:{pooch.file_hash(str(path))}"
    if file.member:
        _extract(path, file.member, target)
        path.unlink()
    return f"{target}: {done}, {trust}"


def _url(file: RemoteFile, what: str) -> str:
    mirror = os.environ.get(URL_VARIABLE)
    return f"{mirror.rstrip('/')}/{what}/{file.name}" if mirror else f"{file.site}/{file.name}"


def _retrieve(file: RemoteFile, url: str, folder: Path) -> Path:
    import pooch
    from requests.exceptions import ChunkedEncodingError, ConnectionError, HTTPError, RequestException, Timeout
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    pooch.get_logger().setLevel("WARNING")  # we say ourselves what happens
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        downloader = _Resuming(folder / f"{file.name}.part", progress)
        try:
            return Path(
                pooch.retrieve(url, known_hash=file.checksum, fname=file.name, path=folder, downloader=downloader)
            )
        except HTTPError as error:
            said, _, _ = str(error).partition(" for url")
            raise VMRNNError(
                f"{url} cannot be had: {said}", f"get {file.name} elsewhere and put it into {folder}"
            ) from error
        except (RequestException, OSError, ImportError) as error:
            broken = f"the download of {url} broke off"
            cause = network.known_cause(broken, error)
            if cause is None and not isinstance(error, RequestException):
                raise  # the disk
            todo = "check the network and try again: what came so far is kept"
            lost = isinstance(error, (ConnectionError, Timeout, ChunkedEncodingError))
            raise cause or VMRNNError(f"{broken}: {network.reason(error)}", todo if lost else "") from error
        except ValueError as error:
            if not file.checksum or file.checksum.split(":")[-1] not in str(error):
                raise VMRNNError(f"the download of {url} failed: {network.reason(error)}") from error
            raise VMRNNError(  # pooch has removed it
                f"{url} is not the published file: its checksum is not {file.checksum}", "try again later"
            ) from error


class _Resuming:
    """A downloader for pooch that collects a file in `part`, and asks the server only for what that lacks.

    Should the file have changed on the server meanwhile, the checksum tells (of KTH, those inside the zip files).
    """

    def __init__(self, part: Path, progress: Progress) -> None:
        self._part, self._progress = part, progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file`, which lies beside the part."""
        import requests

        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # the checksums are those of the compressed files
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            too_long = have > 0 and response.status_code == requests.codes.requested_range_not_satisfiable
            if not too_long:
                response.raise_for_status()
                if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    have = 0  # the server cannot begin in the middle, and sends it all
                self._receive(response, have)
        if too_long:  # then it is no part of this file
            self._part.unlink()
            return self(url, output_file, pooch)
        self._part.replace(output_file)

    def _receive(self, response: Response, have: int) -> None:
        """Write what comes behind the first `have` bytes of the part."""
        rest = int(response.headers.get("Content-Length", 0))
        task = self._progress.add_task(self._part.stem, total=have + rest if rest else None, completed=have)
        with self._part.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                self._progress.advance(task, len(chunk))


def _extract(archive: Path, member: str, target: Path) -> None:
    """Take the file called `member`, in whatever folder it lies, out of a zip file."""
    try:
        with zipfile.ZipFile(archive) as members:
            found = [name for name in members.namelist() if name.split("/")[-1] == member]
            if not found:
                raise InputError(f"{archive} holds no {member}", "get it elsewhere")
            with (
                members.open(found[0]) as source,
                atomic_path(target, overwrite=True) as temporary,
                temporary.open("wb") as file,
            ):
                shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise VMRNNError(f"{archive} is damaged: {error}", "remove it and try again") from error
