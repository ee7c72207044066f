"""Which weights a name means, what is said when there are none, and conversion to and from the published code."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import CONFIGS, B, D, network, same

from vmrnn_cli import hub, video, weights
from vmrnn_cli.errors import InputError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.networks import CONFIG_NAME, WEIGHTS_NAME
from vmrnn_cli.predictor import load_weights
from vmrnn_cli.pretrained import load_model, save_model
from vmrnn_cli.published import published_parameters


@pytest.fixture
def folder(tmp_path):
    """A function that saves a network as a weights folder."""

    def save(config, name="ours", seed=0):
        (tmp_path / name).mkdir(exist_ok=True)
        save_model(network(config, seed), tmp_path / name, half=False)
        return tmp_path / name

    return save


# ---- names


def test_bundled_weights_load_and_are_described():
    registry = weights.registry()
    assert [bool(entry.get("default")) for entry in registry.values()].count(True) == 1
    for name, entry in registry.items():
        assert weights.is_bundled(name) or "repo" in entry
    for name, entry in ((name, entry) for name, entry in registry.items() if weights.is_bundled(name)):
        folder = weights.bundled_folder() / name
        config = weights.load(name).config
        assert entry["fits"]["channels"] == config.image_channels
        assert list(config.image_size) in entry["fits"].get("sizes", [list(config.image_size)])
        assert (folder / "README.md").exists()
        assert hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest() == entry["sha256"]
        assert {"data", "budget", "metrics", "licence"} <= set(entry)
        assert entry["fits"]["kind"] in ("footage", "digits", "grid")


def test_weights_are_picked_by_the_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "bundled_folder", lambda: tmp_path)
    registry = {}
    for name, kind, channels in (
        ("else", "footage", 4), ("clips", "footage", 1), ("digits", "digits", 1), ("worse", "digits", 1),
        ("flows", "grid", 2), ("rain", "grid", 4), ("colour", "footage", 3),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), image_channels=channels)), tmp_path / name)
        registry[name] = {"fits": {"kind": kind, "channels": channels}}
    registry["digits"]["fits"]["sizes"] = registry["worse"]["fits"]["sizes"] = [[32, 32], [64, 64]]
    registry["else"]["default"] = True
    registry = {"elsewhere": {"fits": {"kind": "grid", "channels": 2}}} | registry  # not bundled
    (tmp_path / "registry.json").write_text(json.dumps(registry))
    np.save(tmp_path / "two.npy", np.zeros((9, 2, 8, 8), np.float32))
    np.save(tmp_path / "four.npy", np.zeros((9, 4, 8, 8), np.float32))
    np.save(tmp_path / "five.npy", np.zeros((9, 5, 8, 8), np.float32))
    np.save(tmp_path / "three.npy", np.zeros((9, 3, 8, 8), np.float32))
    np.savez(tmp_path / "one.npz", frames=np.zeros((9, 64, 64), np.float32))
    (tmp_path / "bad.npz").write_text("nothing")
    digits = np.zeros((9, 64, 64), np.uint8)
    digits[:, 20:40, 20:40] = 255
    np.save(tmp_path / "digits.npy", digits)
    np.save(tmp_path / "negative.npy", 255 - digits)
    np.save(tmp_path / "wide.npy", np.pad(digits, ((0, 0), (0, 0), (0, 16))))
    with video.write_video(tmp_path / "digits.mp4", fps=10, overwrite=False) as writer:
        for frame in digits:
            writer.write(np.repeat(frame[..., None], 3, axis=-1))
    picked = {
        "two.npy": "flows", "four.npy": "rain", "five.npy": "else", "three.npy": "colour", "one.npz": "clips",
        "digits.npy": "digits", "digits.mp4": "digits", "negative.npy": "clips", "wide.npy": "else",
    }  # fmt: skip
    assert {source: load_weights(None, tmp_path / source)[1] for source in picked} == picked
    for unusable in ("bad.npz", "none.mp4"):
        with pytest.raises(InputError, match=unusable):
            load_weights(None, tmp_path / unusable)
    assert load_weights("digits", tmp_path / "two.npy")[0].config.image_channels == 1
    np.save(tmp_path / "later.npy", np.concatenate([np.zeros_like(digits), digits]))  # 10 frames a second
    assert [load_weights(None, tmp_path / "later.npy", start)[1] for start in (0.0, 0.9)] == ["clips", "digits"]


def test_the_folder_of_a_run_is_not_yet_one_of_weights(folder, tmp_path):
    (tmp_path / "run").mkdir()
    folder(B).rename(tmp_path / "run" / "best")
    with pytest.raises(InputError, match=r"there is no .*run/config\.json — name .*run/best"):
        weights.load(tmp_path / "run")


def test_cards_show_and_name_what_is_there():
    for name in filter(weights.is_bundled, weights.registry()):
        card = (weights.bundled_folder() / name / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: vmrnn\n")
        for link in re.findall(r"\]\(([^)]+)\)", card):
            assert (weights.bundled_folder() / name / link).exists(), link
            assert "/" not in link  # which would lead nowhere on the Hub


def test_the_table_of_the_readme_says_what_the_cards_say():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for name, entry in weights.registry().items():
        ours, last = re.match(r"MSE ([\d.]+) \(last frame repeated ([\d.]+)\)", entry["metrics"]).groups()
        card = (weights.bundled_folder() / name / "README.md").read_text()
        assert re.search(rf"^\| \[`{name}`\].*\| {ours} \| {last}0* \|", readme, re.M), name
        assert re.search(rf"^\| this network \| {ours} \|", card, re.M), name
        clips = re.search(r"^\| clips \| (\d+)", card.replace(",", ""), re.M)[1]
        assert f"{int(clips):,} clips" in readme


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./x/y", "own er/name", "", "n" * 300])
def test_names_that_mean_nothing(name):
    with pytest.raises(InputError) as caught:
        weights.load(name)
    assert "\n" not in str(caught.value)


def test_bundled_names_come_before_folders(tmp_path, monkeypatch, folder):
    name = weights.default_name()
    folder(B, name)
    monkeypatch.chdir(tmp_path)
    assert weights.locate(name) == weights.bundled_folder() / name
    assert weights.locate(f"./{name}") == Path(name)


def test_folders_come_before_the_hub(tmp_path, monkeypatch, folder):
    (tmp_path / "owner").mkdir()
    folder(B, "owner/name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "download", lambda *_, **__: pytest.fail("asked the Hub"))
    assert weights.load("owner/name").config == B
    monkeypatch.setattr(weights, "registry", lambda: {"ours": {"repo": "owner/other", "sha256": "0"}})
    folder(D, "ours")
    assert weights.load("ours").config == D


def test_repositories_of_registered_names(monkeypatch):
    asked = []
    known = {"ours": {"repo": "owner/other", "sha256": "12ab", "revision": "v1"}}
    monkeypatch.setattr(weights, "registry", lambda: known)
    monkeypatch.setattr(hub, "download", lambda *given, **options: asked.append((given, options)))
    weights.locate("ours")
    weights.locate("ours", "v2", token="hf_x")
    weights.locate("owner/name@v3")
    assert asked == [
        (("owner/other", "v1"), {"sha256": "12ab"}),
        (("owner/other", "v2"), {"sha256": None, "token": "hf_x"}),
        (("owner/name", "v3"), {"sha256": None}),
    ]


def test_the_list_needs_no_torch_and_no_network():
    code = (
        "import sys; from vmrnn_cli.__main__ import run; code = run(['weights', 'list']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in weights.registry():
        assert name in done.stdout
    assert "bundled" in done.stdout


def test_the_list_in_json(run_weights):
    code, out, _ = run_weights("list", "--json")
    assert code == 0
    for name, entry in json.loads(out).items():
        assert entry["where"] == "bundled"
        assert entry["size"] == (weights.bundled_folder() / name / WEIGHTS_NAME).stat().st_size
        assert entry["sha256"]


# ---- conversion


@CONFIGS
@pytest.mark.parametrize("layout", ["mnist", "openstl"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_there_and_back_is_exact(run_weights, folder, tmp_path, config, layout, suffix):
    code, out, _ = run_weights("convert", folder(config), f"w{suffix}", "--to-published", "--layout", layout)
    unused = published_parameters(network(config)) - sum(p.numel() for p in network(config).parameters())
    assert code == 0
    assert f"w{suffix}" in out
    assert f"{unused:,} parameters" in out
    code, out, _ = run_weights("convert", f"w{suffix}", "back")
    assert code == 0
    assert same(load_model(tmp_path / "back"), network(config))
    assert ("does not tell" in out) == (suffix != ".safetensors")
    if suffix == ".safetensors":
        assert load_model(tmp_path / "back").config == config
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_half_precision_becomes_float32(run_weights, tmp_path):
    (tmp_path / "half").mkdir()
    save_model(network(B), tmp_path / "half", half=True)
    assert run_weights("convert", "half", "w.pth", "--to-published")[0] == 0
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vmrnn-d-motion", "w.pth", "--to-published"], "give weights of a VMRNN"),
        (["ours", "w.bin", "--to-published"], ".safetensors, .pth, .pt"),
        (["ours", "w", "--to-published"], ".safetensors, .pth, .pt"),
        (["ours", "w.pth"], "--to-published"),
        (["ours", "w.pth", "--to-published", "--layout", "keras"], "mnist or openstl"),
        (["ours", "there.pth", "--to-published"], "--overwrite"),
        (["ours", "there"], "--overwrite"),
        (["nowhere", "w"], "nowhere"),
        (["there.pth", "w"], "there.pth"),
        (["ours", "no/w"], "there is no folder"),
        (["ours", "no/w.pth", "--to-published"], "there is no folder"),
    ],
    ids=str,
)
def test_conversions_that_cannot_be(run_weights, folder, tmp_path, arguments, says):
    folder(B)
    (tmp_path / "there.pth").write_text("old")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("old")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, err = run_weights("convert", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_overwriting(run_weights, folder, tmp_path):
    folder(B)
    (tmp_path / "w.pth").write_text("old")
    assert run_weights("convert", "ours", "w.pth", "--to-published", "--overwrite")[0] == 0
    folder(D, "there")
    (tmp_path / "there" / "notes.txt").write_text("mine")
    assert run_weights("convert", "w.pth", "there", "--overwrite")[0] == 0
    assert same(load_model(tmp_path / "there"), network(B))
    assert (tmp_path / "there" / "notes.txt").read_text() == "mine"
