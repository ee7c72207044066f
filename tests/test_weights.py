"""Which weights a name means, and what is said when there are none. The Hub is a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from vmrnn_cli import weights
from vmrnn_cli.checkpoints import CONFIG_NAME, WEIGHTS_NAME, save_model
from vmrnn_cli.errors import InputError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.predictor import load_weights

COMMIT = "0123456789012345678901234567890123456789"


def test_bundled_weights_load_and_are_described():
    registry = weights.registry()
    assert weights.default_name() in registry
    for name, entry in registry.items():
        folder = weights.bundled_folder() / name
        assert weights.load(name).config.context > 0
        assert (folder / "README.md").exists()
        assert hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest() == entry["sha256"]
        assert {"data", "budget", "metrics", "licence"} <= set(entry)


def test_weights_are_picked_by_the_channels_of_gridded_data(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "bundled_folder", lambda: tmp_path)
    for name, channels in (("digits", 1), ("flows", 2)):
        (tmp_path / name).mkdir()
        save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), image_channels=channels)), tmp_path / name)
    (tmp_path / "registry.json").write_text('{"digits": {"default": true}, "flows": {}}')
    np.save(tmp_path / "two.npy", np.zeros((9, 2, 8, 8), np.float32))
    np.savez(tmp_path / "one.npz", frames=np.zeros((9, 8, 8), np.float32))
    (tmp_path / "bad.npz").write_text("nothing")
    picked = {source: load_weights(None, tmp_path / source)[1] for source in ("two.npy", "one.npz", "bad.npz", "a.mp4")}
    assert picked == {"two.npy": "flows", "one.npz": "digits", "bad.npz": "digits", "a.mp4": "digits"}
    assert load_weights("digits", tmp_path / "two.npy")[0].config.image_channels == 1


@pytest.fixture
def hub(tmp_path):
    """A server that speaks the Hub's calls for one repository, owner/name; `hub.status` makes it refuse."""
    folder = tmp_path / "repository"
    folder.mkdir()
    torch.manual_seed(0)
    save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,))), folder, half=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            server.requests.append(self.path)
            name = self.path.rsplit("/", 1)[-1]
            content, headers = b"", {"X-Repo-Commit": COMMIT}
            status = server.status
            if status == 200 and self.path.startswith("/api/models/owner/name/tree/"):
                names = (CONFIG_NAME, WEIGHTS_NAME, "other.bin")
                sizes = [(folder / n).stat().st_size if (folder / n).exists() else 9 for n in names]
                files = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in zip(names, sizes, strict=True)]
                content = json.dumps(files).encode()
            elif status == 200 and self.path.startswith("/api/models/owner/name"):
                files = [{"rfilename": n} for n in (CONFIG_NAME, WEIGHTS_NAME, "other.bin")]
                content = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": files}).encode()
            elif status == 200 and name in (CONFIG_NAME, WEIGHTS_NAME) and self.path.startswith("/owner/name/resolve/"):
                content = (folder / name).read_bytes()
                headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            elif status == 200:
                status = 404
            if status == 404:
                headers["X-Error-Code"] = "RepoNotFound"
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.requests = 200, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def info(home, endpoint, **environment):
    """`vmrnn info owner/name` in a process of its own: the Hub's library reads its environment once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    environment.pop("HF_TOKEN", None)
    return subprocess.run(
        [sys.executable, "-m", "vmrnn_cli", "info", "owner/name", "--json"], capture_output=True, text=True,
        env=environment, timeout=120,
    )  # fmt: skip


def one_line(done):
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "owner/name" in errors[0]
    assert "Traceback" not in done.stderr
    return errors[0]


def test_weights_come_from_the_hub_and_then_from_the_cache(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    done = info(tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["embed_dim"] == 16
    assert not any("other.bin" in path for path in hub.requests)
    offline = info(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.stdout == done.stdout


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_hubs_refusals_are_one_line(hub, tmp_path, status):
    hub.status = status
    one_line(info(tmp_path, f"http://127.0.0.1:{hub.server_port}"))


def test_no_network_and_no_copy(tmp_path):
    assert "cannot be reached" in one_line(info(tmp_path, "http://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./x/y", "own er/name", ""])
def test_names_that_mean_nothing(name):
    with pytest.raises(InputError) as caught:
        weights.load(name)
    assert "\n" not in str(caught.value)
