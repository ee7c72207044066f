"""The Hub, end to end: weights from a server on this machine and to it, whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import HubServer, serving
from huggingface_hub import constants

import vmrnn_cli
from vmrnn_cli import hub, weights
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.networks import CONFIG_NAME, WEIGHTS_NAME
from vmrnn_cli.pretrained import load_model, save_model

DOWNLOAD = "from vmrnn_cli import hub; print(hub.download('owner/name'))"  # without PyTorch, which takes seconds
UPLOADS = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # by huggingface_hub
NOWHERE = "http://127.0.0.1:9"


def network(seed=0):
    torch.manual_seed(seed)
    return VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), context=3, horizon=2)).eval()


def same(a, b):
    return a.config == b.config and all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the repository owner/name holds: a weights folder with a card, and something else."""
    folder = tmp_path_factory.mktemp("published")
    save_model(network(), folder, half=False)
    (folder / "README.md").write_text("# A card\n")
    (folder / "other.bin").write_bytes(b"not wanted")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def server(files):
    with serving() as server:
        server.publish("owner/name", files)
        yield server


@pytest.fixture
def cache(server, tmp_path, monkeypatch):
    """The cache of this process, whose Hub is the server; nobody is logged in, and waiting takes no time."""
    use_endpoint(monkeypatch, server.url)
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield cache
    huggingface_hub.close_session()


def use_endpoint(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def child(*arguments, endpoint, home, **environment):
    """Python in a process of its own, as the Hub's library reads its environment once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home,
        env={**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment},
    )  # fmt: skip


def finished(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


# ---- from_pretrained, and what is downloaded when


def test_weights_come_from_the_hub_and_then_from_the_cache(server, cache, files):
    assert same(weights.load("owner/name"), network())
    assert not server.asked("GET", "other.bin")
    server.requests.clear()
    assert same(weights.load("owner/name"), network())
    assert {path.rsplit("/", 1)[1] for path in server.asked("HEAD")} == {CONFIG_NAME}
    assert not server.asked("GET")
    assert sorted(path.name for path in hub.cached("owner/name").iterdir()) == ["README.md", CONFIG_NAME, WEIGHTS_NAME]


def test_something_newer_is_fetched(server, cache, files):
    weights.load("owner/name")
    folder = cache.parent / "new"
    folder.mkdir()
    save_model(network(1), folder, half=False)
    server.publish("owner/name", files | {WEIGHTS_NAME: (folder / WEIGHTS_NAME).read_bytes()})
    assert same(weights.load("owner/name"), network(1))


def test_from_pretrained_of_a_revision(server, cache, files, tmp_path):
    commit = server.publish("owner/name", files)
    save_model(network(1), tmp_path, half=False)
    server.publish("owner/name", {name: (tmp_path / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)})
    assert same(vmrnn_cli.VMRNN.from_pretrained("owner/name"), network(1))
    loaded = vmrnn_cli.VMRNN.from_pretrained("owner/name", revision=commit)
    assert same(loaded, network())
    assert not loaded.training
    assert isinstance(loaded, VMRNN)
    server.requests.clear()
    assert same(weights.load(f"owner/name@{commit}"), network())
    assert not server.requests  # a commit never changes


def test_a_repository_without_a_card(server, cache, files):
    server.publish("owner/bare", {name: files[name] for name in (CONFIG_NAME, WEIGHTS_NAME)})
    assert same(weights.load("owner/bare"), network())


def test_the_token_is_sent(server, cache, monkeypatch):
    server.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert same(weights.load("owner/name"), network())


# ---- interruptions


def test_a_download_that_breaks_off_goes_on_where_it_was(server, cache, files, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.cut = 2
    for _ in range(2):  # an old huggingface_hub gives up and goes on in the next call
        with suppress(VMRNNError):
            weights.load("owner/name")
    assert same(weights.load("owner/name"), network())
    ranges = [headers.get("Range") for verb, path, headers in server.requests if verb == "GET" and WEIGHTS_NAME in path]
    first = len(files[WEIGHTS_NAME]) // 2 // 1000 * 1000
    second = first + (len(files[WEIGHTS_NAME]) - first) // 2 // 1000 * 1000
    assert ranges == [None, f"bytes={first}-", f"bytes={second}-"]


def test_a_download_that_breaks_off_for_good_is_not_used(server, cache, run_weights, monkeypatch):
    use_endpoint(monkeypatch, server.url)
    server.cut = 10**6
    code, out, error = run_weights("pull", "owner/name")
    assert (code, out) == (1, "")
    assert "owner/name" in error
    assert not hub.cached("owner/name")
    server.cut = 0
    assert run_weights("pull", "owner/name")[0] == 0


def test_an_update_that_breaks_off_leaves_the_old_weights(server, cache, files, tmp_path, monkeypatch):
    weights.load("owner/name")
    save_model(network(1), tmp_path, half=False)
    server.publish("owner/name", files | {WEIGHTS_NAME: (tmp_path / WEIGHTS_NAME).read_bytes()})
    server.cut = 10**6
    with pytest.raises(VMRNNError, match="owner/name"):
        weights.load("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(weights.load("owner/name"), network())


def test_a_download_that_stalls(server, cache, run_weights, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.going_on.clear()
    code, _, error = run_weights("pull", "owner/name")
    assert code == 1
    assert "owner/name" in error
    assert "timed out" in error


def test_an_interrupted_download_leaves_nothing_outside_the_cache(server, tmp_path):
    server.going_on.clear()
    process = child(
        "-m", "vmrnn_cli", "weights", "pull", "owner/name", "--to", "copy", endpoint=server.url, home=tmp_path
    )
    assert server.halfway.wait(60)
    process.send_signal(signal.SIGINT)
    assert finished(process)[0] == 130
    server.going_on.set()
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    assert finished(child("-c", DOWNLOAD, endpoint=server.url, home=tmp_path))[0] == 0


@pytest.mark.parametrize("large", [True, False], ids=["as the Hub hashes", "as we know"])
def test_damaged_weights_are_refused_and_leave_the_cache(server, cache, files, monkeypatch, large):
    right, wrong = files[WEIGHTS_NAME], files[WEIGHTS_NAME][:-1] + b"\x01"
    monkeypatch.setattr(weights, "registry", lambda: {"ours": entry(right)})
    if large:
        server.truth = right
    server.publish("owner/name", files | {WEIGHTS_NAME: wrong})
    with pytest.raises(VMRNNError, match=rf"damaged.*{hashlib.sha256(right).hexdigest()}.* — .*try again") as caught:
        weights.load("owner/name" if large else "ours")
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() == wrong]
    server.repositories.clear()
    server.publish("owner/name", files)
    assert same(weights.load("owner/name" if large else "ours"), network())


def entry(content, **more):
    return {"repo": "owner/name", "sha256": hashlib.sha256(content).hexdigest(), "data": "digits", **more}


def test_registered_weights_that_are_not_bundled(server, cache, files, monkeypatch, run_weights):
    commit = server.publish("owner/name", files)
    monkeypatch.setattr(weights, "registry", lambda: {"ours": entry(files[WEIGHTS_NAME], revision=commit)})
    listed = json.loads(run_weights("list", "--json")[1])["ours"]
    assert (listed["where"], "size" in listed) == ("on the Hub", False)
    assert same(weights.load("ours"), network())
    listed = json.loads(run_weights("list", "--json")[1])["ours"]
    assert (listed["where"], listed["size"]) == ("cached", len(files[WEIGHTS_NAME]))
    assert "cached" in run_weights("list")[1]
    server.requests.clear()
    assert run_weights("pull", "ours")[0] == 0
    assert not server.requests


def test_two_processes_pull_at_once(server, tmp_path):
    server.talking.clear()
    processes = [child("-c", DOWNLOAD, endpoint=server.url, home=tmp_path) for _ in range(2)]
    while len(server.requests) < 2:
        assert all(process.poll() is None for process in processes)
        threading.Event().wait(0.01)
    server.talking.set()
    done = [finished(process) for process in processes]
    assert [code for code, _, _ in done] == [0, 0], done
    assert done[0][1] == done[1][1]
    assert same(load_model(Path(done[0][1].strip())), network())


# ---- refusals


@pytest.mark.parametrize(
    ("status", "code", "reason", "says"),
    [
        (401, "RepoNotFound", "Invalid username or password.", "hf auth login"),
        (401, "GatedRepo", "Access to model owner/name is restricted.", "ask for access"),
        (403, "GatedRepo", "You are not in the authorized list.", "ask for access"),
        (403, "", "Token lacks the permission.", "HF_TOKEN"),
        (404, "RepoNotFound", "Repository not found", "check the name"),
        (404, "RevisionNotFound", "Invalid rev id: main", "check the revision"),
        (404, "EntryNotFound", "Entry not found", "not the repository of a VMRNN"),
    ],
)
@pytest.mark.parametrize("copy", [False, True], ids=["", "cached"])
def test_refusals_give_the_hubs_reason_and_what_to_do(server, cache, run_weights, status, code, reason, says, copy):
    if copy:
        weights.load("owner/name")
    server.status, server.code, server.reason = status, code, reason
    exit_code, out, error = run_weights("pull", "owner/name")
    assert (exit_code, out) == (2, "")
    for part in ("owner/name", reason.rstrip("."), says):
        assert part in error


@pytest.mark.parametrize(
    ("name", "says"),
    [("owner/nothing", "Repository not found"), ("owner/name@v9", "Invalid rev id: v9"), ("own er/name", "owner/name")],
)
def test_what_is_not_on_the_hub(server, cache, run_weights, name, says):
    code, _, error = run_weights("pull", name)
    assert code == 2
    assert name in error
    assert says in error


def test_a_busy_hub_is_asked_again(server, cache):
    server.answers, server.headers = [429, 503, 500], {"Retry-After": "1"}
    assert same(weights.load("owner/name"), network())
    assert not server.answers


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_stays_busy(server, cache, run_weights, caplog, status):
    server.status, server.reason = status, "come back later"
    code, _, error = run_weights("pull", "owner/name")
    assert code == 1
    for part in ("owner/name", "come back later", str(status)):
        assert part in error
    assert len(server.requests) == 5
    server.status = None
    weights.load("owner/name")
    server.status = status
    caplog.clear()
    assert same(weights.load("owner/name"), network())
    assert "come back later" in caplog.text
    assert "copy in the cache" in caplog.text


def test_a_hub_that_does_not_answer(server, cache, run_weights, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    server.talking.clear()
    code, _, error = run_weights("pull", "owner/name")
    assert code == 1
    assert "owner/name" in error
    assert "timed out" in error
    assert len(server.requests) == 1


def test_no_network(server, cache, run_weights, monkeypatch, caplog):
    use_endpoint(monkeypatch, NOWHERE)
    code, _, error = run_weights("pull", "owner/name")
    assert code == 1
    assert "cannot be reached for 'owner/name'" in error
    use_endpoint(monkeypatch, server.url)
    weights.load("owner/name")
    use_endpoint(monkeypatch, NOWHERE)
    assert same(weights.load("owner/name"), network())
    assert "cannot be reached" in caplog.text
    assert "copy in the cache" in caplog.text


@pytest.mark.parametrize("way", ["offline", "local_files_only"])
def test_offline(server, cache, monkeypatch, caplog, way):
    options = {"local_files_only": True} if way == "local_files_only" else {}
    weights.load("owner/name")
    server.requests.clear()
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(load_model(weights.locate("owner/name", **options)), network())
    with pytest.raises(InputError, match=r"owner/other.*offline"):
        weights.locate("owner/other", **options)
    assert not server.requests
    assert not caplog.records  # it was wished for


def test_a_cache_that_cannot_be_written_to(server, cache, run_weights):
    cache.write_text("a file")
    code, _, error = run_weights("pull", "owner/name")
    assert code == 1
    assert "HF_HOME" in error


def test_an_endpoint_that_is_no_hub(server, cache, run_weights, monkeypatch):
    monkeypatch.setattr(HubServer, "commit_header", "X-Something")
    code, _, error = run_weights("pull", "owner/name")
    assert code == 1
    assert "transfer of 'owner/name' broke off" in error


def test_tokens_that_are_none(server, cache, run_weights, monkeypatch):
    with pytest.raises(InputError, match="hf auth login"):
        vmrnn_cli.VMRNN.from_pretrained("owner/name", token=True)
    monkeypatch.setenv("HF_TOKEN", "hf_\xe9")
    code, _, error = run_weights("pull", "owner/name")
    assert (code, "HF_TOKEN" in error) == (2, True)


def test_an_environment_that_is_wrong(tmp_path):
    for wrong in ({"HF_ENDPOINT": "http://127.0.0.1:abc"}, {"HF_HUB_DOWNLOAD_TIMEOUT": "abc"}):
        home = {"endpoint": NOWHERE, "home": tmp_path, **wrong}
        code, _, error = finished(child("-m", "vmrnn_cli", "weights", "pull", "owner/name", **home))
        assert code == 2
        assert "check the environment's HF_ variables" in error.splitlines()[-1]
        assert finished(child("-m", "vmrnn_cli", "weights", "list", **home))[0] == 0
    code, _, error = finished(child("-m", "vmrnn_cli", "weights", "pull", "o/n", endpoint="127.0.0.1:9", home=tmp_path))
    assert code == 1
    assert "check the network and HF_ENDPOINT, which is 127.0.0.1:9" in error


def test_the_environment_is_honoured(server, tmp_path):
    server.token = "hf_secret"
    code, _, err = finished(child("-c", DOWNLOAD, endpoint=server.url, home=tmp_path))
    assert "HF_TOKEN" in err.splitlines()[-1]
    code, out, err = finished(child("-c", DOWNLOAD, endpoint=server.url, home=tmp_path, HF_TOKEN="hf_secret"))
    assert (code, err) == (0, "")  # no progress bar but on a terminal
    assert Path(out.strip()).is_relative_to(tmp_path)
    code, again, err = finished(child("-c", DOWNLOAD, endpoint=NOWHERE, home=tmp_path))
    assert (code, again) == (0, out)
    assert err.count("\n") == 1
    assert "copy in the cache" in err
    assert finished(child("-c", DOWNLOAD, endpoint=NOWHERE, home=tmp_path, HF_HUB_OFFLINE="1")) == (0, out, "")
    server.talking.clear()
    code, again, err = finished(child("-c", DOWNLOAD, endpoint=server.url, home=tmp_path, HF_HUB_ETAG_TIMEOUT="1"))
    assert (code, again) == (0, out)
    assert "timed out" in err


# ---- the commands


def test_pull_puts_a_copy_into_a_folder(server, cache, run_weights, tmp_path, files):
    assert run_weights("pull", "owner/name", "--to", "copy") == (0, "copy\n", "")
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").iterdir() if not p.is_symlink()} == {
        name: files[name] for name in (CONFIG_NAME, WEIGHTS_NAME, "README.md")
    }
    server.requests.clear()
    code, _, error = run_weights("pull", "owner/name", "--to", "copy")
    assert (code, server.requests) == (2, [])
    assert "--overwrite" in error
    assert run_weights("pull", "owner/name", "--to", "copy", "--overwrite")[0] == 0
    assert run_weights("pull", "owner/nothing", "--to", "other")[0] == 2
    assert not (tmp_path / "other").exists()


def test_pull_of_bundled_weights_asks_nobody(server, cache, run_weights, tmp_path):
    name = weights.default_name()
    assert run_weights("pull", name)[1].strip() == str(weights.bundled_folder() / name)
    assert run_weights("pull", name, "--to", "copy")[0] == 0
    assert same(load_model(tmp_path / "copy"), weights.load(name))
    assert not server.requests


def test_pull_of_what_is_no_vmrnn(server, cache, run_weights, files):
    server.publish("owner/bert", files | {CONFIG_NAME: b'{"architectures": ["BertModel"]}'})
    code, _, error = run_weights("pull", "owner/bert")
    assert code == 2
    assert "VMRNN" in error


@pytest.mark.parametrize("name", ["", "copy", "nothing", "nothing.pth"])
def test_pull_of_what_is_not_to_be_had(cache, run_weights, tmp_path, name):
    (tmp_path / "copy").mkdir()
    assert run_weights("pull", name)[0] == 2


@pytest.fixture
def folder(tmp_path, files):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@UPLOADS
def test_push_and_pull_again(server, cache, run_weights, folder, files, monkeypatch):
    server.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (folder / "curve.png").write_bytes(b"a picture of the card")
    assert run_weights("push", folder, "me/mine", "--private") == (0, f"{server.url}/me/mine\n", "")
    asked = server.created["me/mine"]
    assert asked.get("visibility") == "private" or asked.get("private") is True  # as huggingface_hub is new or old
    wanted = {name: files[name] for name in (CONFIG_NAME, WEIGHTS_NAME, "README.md")}
    wanted["curve.png"] = b"a picture of the card"
    assert server.repositories["me/mine"]["main"] == wanted
    assert same(weights.load("me/mine"), network())
    assert run_weights("push", folder, "me/mine", "--revision", "v2")[1] == f"{server.url}/me/mine/tree/v2\n"
    assert server.repositories["me/mine"]["v2"] == wanted
    assert run_weights("push", folder, "short")[1] == f"{server.url}/me/short\n"  # the owner is who has the token
    assert server.repositories["me/short"]["main"] == wanted


def test_push_without_a_token(server, cache, run_weights, folder):
    code, _, error = run_weights("push", folder, "me/mine")
    assert code == 2
    assert "hf auth login" in error
    assert "HF_TOKEN" in error
    assert not server.requests


@pytest.mark.parametrize("status", [401, 403])
def test_push_where_one_may_not(server, cache, run_weights, folder, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    server.status, server.reason = status, "You don't have the rights"
    code, _, error = run_weights("push", folder, "other/mine")
    assert code == 2
    assert "You don't have the rights" in error
    assert "other/mine" in error


def test_push_of_nothing_and_to_nowhere(server, cache, run_weights, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "empty").mkdir()
    assert run_weights("push", "empty", "me/mine")[0] == 2
    assert run_weights("push", "nowhere", "me/mine")[0] == 2
    assert run_weights("push", folder / WEIGHTS_NAME, "me/mine")[0] == 2
    assert run_weights("push", folder, "me/mi ne")[0] == 2
    assert "--revision" in run_weights("push", folder, "me/mine@v2")[2]
    assert not server.requests
    use_endpoint(monkeypatch, NOWHERE)
    code, _, error = run_weights("push", folder, "me/mine")
    assert code == 1
    assert "cannot be reached" in error
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, error = run_weights("push", folder, "me/mine")
    assert code == 2
    assert "HF_HUB_OFFLINE" in error


# ---- the mixin


def test_save_pretrained_writes_a_folder_of_ours(tmp_path):
    model = vmrnn_cli.VMRNN(network().config)
    model.load_state_dict(network().state_dict())
    model.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["README.md", CONFIG_NAME, WEIGHTS_NAME]
    assert same(load_model(tmp_path / "new" / "folder"), network())
    (tmp_path / "new" / "folder" / "README.md").write_text("mine")
    model.save_pretrained(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "README.md").read_text() == "mine"
    assert same(vmrnn_cli.VMRNN.from_pretrained(tmp_path / "new" / "folder"), network())
    (tmp_path / "file").write_text("")
    for place in ("file", "file/folder"):
        with pytest.raises(InputError, match="file"):
            model.save_pretrained(tmp_path / place)


@UPLOADS
def test_push_to_hub(server, cache, monkeypatch):
    model = vmrnn_cli.VMRNN.from_pretrained("owner/name")
    with pytest.raises(InputError, match="HF_TOKEN"):
        model.push_to_hub("me/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    commit = model.push_to_hub("me/mine")
    assert commit.startswith(f"{server.url}/me/mine/commit/")
    assert same(vmrnn_cli.VMRNN.from_pretrained("me/mine"), network())
    assert b"vmrnn predict" in server.repositories["me/mine"]["main"]["README.md"]


def test_a_revision_of_what_is_here(tmp_path):
    save_model(network(), tmp_path)
    for name in (weights.default_name(), tmp_path):
        with pytest.raises(InputError, match="leave the revision out"):
            vmrnn_cli.VMRNN.from_pretrained(name, revision="v1")
