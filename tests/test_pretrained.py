"""Networks from files and back: our folders, and published checkpoints however they were saved."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import CONFIGS, B, D, network, same

from vmrnn_cli.errors import InputError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.networks import CONFIG_NAME, WEIGHTS_NAME
from vmrnn_cli.pretrained import load_model, save_model
from vmrnn_cli.published import to_published


@CONFIGS
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "ddp"])
@pytest.mark.parametrize("layout", ["mnist", "openstl"])
def test_published_layouts(tmp_path, config, layout, prefix, wrapped, suffix):
    model = network(config)
    state = {prefix + name: t for name, t in to_published(model, layout).items()}
    content = {"epoch": 7, "optimizer": {"lr": 0.1}, "state_dict": state, "scheduler": {}} if wrapped else state
    torch.save(content, tmp_path / f"w{suffix}")
    loaded = load_model(tmp_path / f"w{suffix}")
    assert same(model, loaded)
    assert not loaded.training
    for key in ("variant", "image_channels", "patch_size", "embed_dim", "depths", "depths_up"):
        assert getattr(loaded.config, key) == getattr(config, key)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPINGS = {
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "lightning": lambda s: {"state_dict": prefixed("model.", s), "epoch": 3, "global_step": 30, "callbacks": {}},
    "compiled and parallel": lambda s: prefixed("module._orig_mod.", s),
    "parallel and compiled": lambda s: {"net": prefixed("_orig_mod.module.", s)},
    "compiled inside": lambda s: {name.replace("ST.", "ST._orig_mod.", 1): t for name, t in s.items()},
    "a network of a network": lambda s: prefixed("module.method.model._orig_mod.", s),
    "model": lambda s: {"model": s, "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.5},
    "nested": lambda s: {"checkpoint": {"state": {"net": prefixed("net.", s)}}, "args": ["--lr", 0.1], 3: None},
    "ema alone": lambda s: {"ema": {"decay": 0.99, "module": s}},
    "averaged": lambda s: {"ema": s, "model": {name: t + 1 for name, t in s.items()}},
    "averaged beside": lambda s: (
        prefixed("ema_model.module.", s) | prefixed("model.", {n: t + 1 for n, t in s.items()})
    ),
    "swa": lambda s: {"n_averaged": torch.tensor(3), **prefixed("module.", s)},
    "counted": lambda s: {**s, "total_ops": torch.zeros(1), "ST.patch_embed.total_params": torch.zeros(1)},
    "numbers": lambda s: {**s, "epoch": 3, "best": None},
    "NumPy's numbers": lambda s: {"state_dict": s, "mse": np.float64(3), "step": np.int64(2), "ok": np.bool_(True)},
    "twice": lambda s: {"model": s, "state_dict": s},
    "optimizer": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{}]}},
}


@pytest.mark.parametrize("name", ["w.pth", "w.ckpt", "w.bin", "w.pth.tar", "w", "trained_16.5_0.965", "w.safetensors"])
@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
def test_checkpoints_however_they_are_wrapped_and_called(tmp_path, wrapping, name):
    model = network(B)
    content = wrapping(to_published(model))
    if name == "w.safetensors":
        if not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
            pytest.skip("safetensors hold tensors and nothing else")
        save_file(content, tmp_path / "w")
    else:
        torch.save(content, tmp_path / name)
    assert same(model, load_model(tmp_path / ("w" if name == "w.safetensors" else name)))


def test_a_choice_among_networks_is_told_or_left_to_the_user(tmp_path):
    state = to_published(network(B))
    torch.save({"ema": state, "model": dict(state)}, tmp_path / "w.pth")
    assert load_model(tmp_path / "w.pth").place == "ema"
    torch.save({"student": state, "schema": dict(state)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "student", "schema")


def test_strangers_beside_a_wrapped_network_are_named(tmp_path):
    state = {"state_dict": prefixed("model.", to_published(network(B))) | {"criterion.weight": torch.ones(2)}}
    torch.save(state, tmp_path / "w.ckpt")
    refused(tmp_path / "w.ckpt", "criterion.weight")


def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path):
    state = to_published(network(B))
    state["ST.layers.0.VSBs.0.ln_1.bias"] = torch.ones(1).expand(16)
    torch.save(state, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "down.0.blocks.0.norm.bias")


def test_old_torch_format(tmp_path):
    model = network(B)
    torch.save(to_published(model), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(model, load_model(tmp_path / "w.pth"))


def test_published_layout_in_safetensors(tmp_path):
    model = network(D)
    save_file(to_published(model), tmp_path / "w.safetensors")
    assert same(model, load_model(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("half", [True, False])
@CONFIGS
def test_folders_round_trip(tmp_path, config, half):
    model = network(config)
    save_model(model, tmp_path, half=half)
    loaded = load_model(tmp_path)
    assert loaded.config == config
    for p, q in zip(model.parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(q, p.half().float() if half else p, rtol=0, atol=0)
    assert same(loaded, load_model(tmp_path / WEIGHTS_NAME))


def test_our_tensors_without_a_config(tmp_path):
    model = network(D)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    (tmp_path / CONFIG_NAME).write_text("of something else")
    assert same(model, load_model(tmp_path / "w.safetensors"))
    assert same(model, load_model(tmp_path / "w.pt"))


def test_a_file_of_ours_carries_its_configuration(tmp_path):
    config = VMRNNConfig(embed_dim=16, depths=(1,), image_size=(9, 7), context=3, horizon=2)
    save_model(VMRNN(config), tmp_path)
    (tmp_path / WEIGHTS_NAME).rename(tmp_path / "alone.safetensors")
    assert load_model(tmp_path / "alone.safetensors").config == config
    save_file(VMRNN(config).state_dict(), tmp_path / "bad.safetensors", {"vmrnn_config": "{"})
    refused(tmp_path / "bad.safetensors", "bad.safetensors")


def refused(path, *parts):
    with pytest.raises(InputError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (Path(path).name, *parts):
        assert part in message, message
    return message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("ST.patch_embed.proj.weight"), "patch_embedding.proj.weight"),
        (lambda s: s.pop("ST.layers.0.VSBs.1.ln_1.bias"), "missing: down.0.blocks.1.norm.bias"),
        (lambda s: s.update({"backbone.conv1.weight": torch.ones(2)}), "backbone.conv1.weight"),
        (
            lambda s: s.update({"ST.layers.0.VSBs.0.ln_1.gamma": torch.ones(2)}),
            "unexpected: down.0.blocks.0.norm.gamma",
        ),
        (
            lambda s: s.update({"ST.layers.0.VSBs.0.ln_1.bias": torch.ones(3)}),
            "another shape: down.0.blocks.0.norm.bias",
        ),
        (lambda s: s["ST.layers.0.VSBs.0.ln_1.bias"].fill_(float("nan")), "not finite: down.0.blocks.0.norm.bias"),
        (lambda s: s.update({"ST.patch_embed.proj.weight": torch.ones(16, 1, 3, 3)}), "patch_size"),
        (lambda s: s.update({"ST.patch_embed.proj.weight": torch.ones(16)}), "expected 4, got 1"),
        (lambda s: s.update({"ST.layers.0.VSBs.0.self_attention.A_logs": torch.ones(())}), "expected 2, got 0"),
        (lambda s: s.update({1: torch.ones(2)}), "no state dict"),
        (lambda s: s.update({"a\nb" * 999: torch.ones(2)}), "no published VMRNN has: a\\nba\\nb"),
        *(
            (
                lambda s, t=t: s.update({"ST.layers.0.VSBs.0.ln_1.bias": t}),
                "not floating-point numbers: down.0.blocks.0",
            )
            for t in (
                torch.ones(16, dtype=torch.int64),
                torch.ones(16, dtype=torch.complex64),
                torch.ones(16).to_sparse(),
                torch.ones(16, device="meta"),
            )
        ),
        # finite, but not in the float32 that the model has
        (lambda s: s.update({"ST.layers.0.VSBs.0.ln_1.bias": torch.full((16,), 1e300, dtype=torch.float64)}), "finite"),
    ],
)
def test_wrong_tensors_are_listed(tmp_path, change, says):
    state = {name: t.clone() for name, t in to_published(network(B)).items()}
    change(state)
    torch.save(state, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", says)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("form", ["torch", "pickle", "wrapped"])
def test_code_in_a_pickle_is_refused_unread(tmp_path, form):
    bomb = Bomb(tmp_path / "exploded")
    if form == "pickle":
        (tmp_path / "w.pth").write_bytes(pickle.dumps(bomb))
    else:
        torch.save(
            {"state_dict": to_published(network(B)), "epoch": bomb} if form == "wrapped" else bomb, tmp_path / "w.pth"
        )
    refused(tmp_path / "w.pth", "code")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 40, b"PK\x03\x04broken"], ids=range(4))
def test_unreadable_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_files(tmp_path, name):
    torch.save(to_published(network(B)), tmp_path / "w.pth")
    save_file(network(B).state_dict(), tmp_path / "w.safetensors")
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, {"state_dict": {}}, torch.ones(3)], ids=str)
def test_checkpoints_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    refused(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "SwinLSTM"}, {"colour": "red"}, {"embed_dim": "x"}, {"embed_dim": 16.5}, {"embed_dim": True},
        {"depths": 3}, {"depths": ["2"]}, {"image_size": [64]}, {"patch_size": 5}, {"variant": None},
        {"drop_path": "a"},
        {"depths": [2]}, {"embed_dim": 10**9}, {"depths": [10**9]}, {"d_state": 10**17}, {"image_channels": 10**30},
        {"image_size": [0, 64]}, {"image_size": [9999, 9999]}, {"image_size": [2000, 2000], "context": 9999},
        {"divided_by": 1e300}, {"divided_by": 0.5}, {"depths": [999]}, {"context": 0}, {"horizon": -1},
        {"drop_path": math.nan}, {"drop_path": 1},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_configurations(tmp_path, change):
    save_model(network(B), tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text()) | change
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    refused(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"VMRNN"', "\xff\xfe", "[" * 100_000], ids=range(7))
def test_configurations_that_are_no_json_object(tmp_path, text):
    save_model(network(B), tmp_path)
    (tmp_path / CONFIG_NAME).write_bytes(text.encode("latin-1"))
    refused(tmp_path)


def test_missing_parts(tmp_path):
    refused(tmp_path, CONFIG_NAME)
    save_model(network(B), tmp_path)
    (tmp_path / WEIGHTS_NAME).unlink()
    refused(tmp_path, WEIGHTS_NAME)
    refused(tmp_path / "nowhere.pth")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt")
