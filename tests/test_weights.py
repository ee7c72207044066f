"""Which weights a name means, and what is said when there are none. The Hub is a server on this machine."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from vmrnn_cli import weights
from vmrnn_cli.checkpoints import WEIGHTS_NAME, save_model
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


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./x/y", "own er/name", ""])
def test_names_that_mean_nothing(name):
    with pytest.raises(InputError) as caught:
        weights.load(name)
    assert "\n" not in str(caught.value)
