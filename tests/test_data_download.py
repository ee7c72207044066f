"""Downloads against a server on this machine: whole and verified, or not there at all."""

from __future__ import annotations

import hashlib
import io
import signal
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from rich.progress import Progress

from vmrnn_cli import __main__ as program
from vmrnn_cli.data import download as downloads
from vmrnn_cli.data.download import PublishedFiles, RemoteFile, download
from vmrnn_cli.errors import InputError, VMRNNError

DIGITS = b"digits" * 50_000


class Server(ThreadingHTTPServer):
    """Serves `files` by path; notes what is asked for, from which byte on; hangs up midway in those in `broken`."""

    daemon_threads = True
    ranges = True  # whether it can begin in the middle of a file

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.asked, self.begins = {}, set(), [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.begins.append(begin)
        if begin and self.server.ranges:
            if begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            content = content[begin:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path in self.server.broken else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv(downloads.URL_VARIABLE, server.url + "/")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def digits(server, monkeypatch):
    """A data set of two files whose checksums are known."""
    files = tuple(RemoteFile("unused", name, f"md5:{hashlib.md5(DIGITS).hexdigest()}") for name in ("a.gz", "b.gz"))
    monkeypatch.setitem(downloads.SOURCES, "digits", PublishedFiles(files, "free"))
    server.files |= {f"/digits/{file.name}": DIGITS for file in files}
    return server


@pytest.fixture(autouse=True)
def own_signals():
    """`program.run` takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_come_whole_and_verified_once(digits, tmp_path):
    lines = []
    download("digits", tmp_path / "new" / "folder", lines.append)
    assert names(tmp_path / "new" / "folder") == ["a.gz", "b.gz"]
    assert (tmp_path / "new" / "folder" / "a.gz").read_bytes() == DIGITS
    assert lines[0] == "licence: free"
    assert all("downloaded, verified" in line for line in lines[1:])
    lines.clear()
    download("digits", tmp_path / "new" / "folder", lines.append)
    assert digits.asked == ["/digits/a.gz", "/digits/b.gz"]
    assert all("already there, verified" in line for line in lines[1:])


def test_a_wrong_checksum_is_refused_and_the_file_removed(digits, tmp_path):
    digits.files["/digits/b.gz"] = b"something else"
    with pytest.raises(VMRNNError, match=r"b\.gz is not the published file.*md5:"):
        download("digits", tmp_path, print)
    assert names(tmp_path) == ["a.gz"]


def test_a_spoilt_file_is_replaced_only_by_the_right_one(digits, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"spoilt")
    digits.broken.add("/digits/a.gz")
    with pytest.raises(VMRNNError, match="broke off"):
        download("digits", tmp_path, print)
    assert (tmp_path / "a.gz").read_bytes() == b"spoilt"
    assert names(tmp_path) == ["a.gz", "a.gz.part"]
    digits.broken.clear()
    download("digits", tmp_path, print)
    assert (tmp_path / "a.gz").read_bytes() == DIGITS


def test_an_interrupted_download_goes_on_where_it_stopped(digits, tmp_path):
    digits.broken.add("/digits/b.gz")
    sizes = []
    for cut in (len(DIGITS) // 2, len(DIGITS) * 3 // 4):  # then half of the rest
        with pytest.raises(VMRNNError, match=r"b\.gz broke off") as caught:
            download("digits", tmp_path, print)
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == ["a.gz", "b.gz.part"]
        sizes.append((tmp_path / "b.gz.part").stat().st_size)
        assert cut - 2 * downloads._CHUNK < sizes[-1] <= cut
    digits.broken.clear()
    digits.asked.clear()
    download("digits", tmp_path, print)
    assert digits.asked == ["/digits/b.gz"]
    assert digits.begins == [0, 0, *sizes]
    assert names(tmp_path) == ["a.gz", "b.gz"]
    assert (tmp_path / "b.gz").read_bytes() == DIGITS


def test_a_server_that_cannot_begin_in_the_middle(digits, tmp_path):
    digits.ranges = False
    (tmp_path / "a.gz.part").write_bytes(DIGITS[:1000])
    download("digits", tmp_path, print)
    assert digits.begins == [1000, 0]
    assert names(tmp_path) == ["a.gz", "b.gz"]
    assert (tmp_path / "a.gz").read_bytes() == DIGITS


def test_a_part_longer_than_the_file_is_dropped(digits, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(DIGITS + b"more")
    download("digits", tmp_path, print)
    assert digits.begins == [len(DIGITS) + 4, 0, 0]
    assert (tmp_path / "a.gz").read_bytes() == DIGITS


def test_a_part_of_another_file_is_refused_and_removed(digits, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(b"other")
    with pytest.raises(VMRNNError, match=r"a\.gz is not the published file"):
        download("digits", tmp_path, print)
    assert names(tmp_path) == []
    download("digits", tmp_path, print)


def test_ctrl_c_keeps_the_part_and_no_file(digits, tmp_path, monkeypatch):
    def interrupt(self, task, size):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "advance", interrupt)
        download("digits", tmp_path, print)
    assert names(tmp_path) == ["a.gz.part"]
    download("digits", tmp_path, print)
    assert digits.begins == [0, downloads._CHUNK, 0]
    assert names(tmp_path) == ["a.gz", "b.gz"]


def test_a_missing_file(server, tmp_path):
    with pytest.raises(VMRNNError, match=r"/kth/boxing\.zip cannot be had: 404"):
        download("kth", tmp_path, print)
    assert names(tmp_path) == []


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as gone:
        pass
    monkeypatch.setenv(downloads.URL_VARIABLE, gone.url)
    with pytest.raises(VMRNNError, match=r"broke off: .*refused"):
        download("kth", tmp_path, print)


def test_published_checksums_are_demanded(server, tmp_path):
    server.files["/moving-mnist/train-images-idx3-ubyte.gz"] = DIGITS
    with pytest.raises(VMRNNError, match="f68b3c2dcbeaaa9fbdd348bbdeb94873"):
        download("moving-mnist", tmp_path, print)
    assert all(file.checksum for file in downloads.SOURCES["moving-mnist"].files)


def test_what_cannot_be_verified_is_called_so(server, tmp_path):
    server.files |= {f"/kth/{file.name}": file.name.encode() for file in downloads.SOURCES["kth"].files}
    lines = []
    download("kth", tmp_path, lines.append)
    assert len(names(tmp_path)) == 6
    assert f"unverified, as no checksum is known; sha256:{hashlib.sha256(b'walking.zip').hexdigest()}" in lines[-1]


def zipped(name, data):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return content.getvalue()


def test_taxibj_is_unpacked(server, tmp_path):
    arrays = io.BytesIO()
    np.savez(arrays, X_train=np.zeros(3))
    server.files["/taxibj/taxibj_dataset.zip"] = zipped("taxibj/dataset.npz", arrays.getvalue())
    for _ in range(2):
        download("taxibj", tmp_path, print)
    assert names(tmp_path) == ["dataset.npz"]
    assert np.load(tmp_path / "dataset.npz")["X_train"].shape == (3,)
    assert len(server.asked) == 1


@pytest.mark.parametrize("damage", ["no zip", "no member", "spoilt member"])
def test_a_damaged_zip_file_leaves_no_data_set(server, tmp_path, damage):
    whole = zipped("dataset.npz", bytes(range(256)) * 100)
    server.files["/taxibj/taxibj_dataset.zip"] = {
        "no zip": b"sorry",
        "no member": zipped("readme.txt", b""),
        "spoilt member": whole[:60] + b"\xff" * 20 + whole[80:],
    }[damage]
    with pytest.raises(VMRNNError, match=r"taxibj_dataset\.zip"):
        download("taxibj", tmp_path, print)
    assert "dataset.npz" not in names(tmp_path)


def test_wrong_requests(tmp_path):
    (tmp_path / "file").touch()
    for what, folder in (("imagenet", tmp_path), ("kth", tmp_path / "file")):
        with pytest.raises(InputError):
            download(what, folder, print)


def test_the_command(digits, tmp_path, capsys):
    assert program.run(["data", "get", "digits", str(tmp_path / "out")]) == 0
    assert "licence: free" in capsys.readouterr().out
    assert program.run(["data", "get", "imagenet", str(tmp_path)]) == 2
    assert program.run(["data", "get", "taxibj", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 2
