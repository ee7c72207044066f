"""Numbers that the published code computed, and how close is close."""

from __future__ import annotations

import pytest
import torch

from vmrnn_cli.model import VMRNN
from vmrnn_cli.published import infer_config, our_name

# Largest difference of outputs and states, relative distance of gradients. The golden numbers are float32, and so is
# their noise, which grows along the rollout.
TOLERANCES = {"vmrnn_b_patch2": (1e-6, 1e-5, 3e-6), "vmrnn_b_patch4": (5e-6, 2e-5, 1e-5), "vmrnn_d": (5e-5, 8e-5, 8e-5)}


def load(golden, dtype):
    params = {ours: t for name, t in golden.params.items() if (ours := our_name(name)) is not None}
    model = VMRNN(infer_config(params))
    model.load_state_dict(params)
    return model.to(dtype)


def assert_rollout_is_published(golden, name, backend, dtype=torch.float32):
    """Outputs, final states, loss and gradients of a golden file, computed on a scan backend."""
    numbers = golden(name)
    outputs_within, states_within, gradients_within = TOLERANCES[name]
    model = load(numbers, dtype)
    model.scan_backend = backend
    context = numbers.tensors["context"].to(dtype).transpose(0, 1)
    frame, states, outputs = context[0], None, []
    for step in range(numbers.tensors["rollout"].shape[1]):
        frame, states = model(context[step] if step < len(context) else frame, states)
        outputs.append(frame)
    outputs = torch.stack(outputs, dim=1)
    assert (outputs - numbers.tensors["rollout"]).abs().max() < outputs_within

    keys = [key.rsplit(".", 1)[0] for key in numbers.tensors if key.endswith(".hidden")]
    keys.sort(key=lambda key: ("up" in key, key))
    assert len(keys) == len(states)
    for key, state in zip(keys, states, strict=True):
        for part in ("hidden", "cell"):
            got = getattr(state, part).flatten(1, 2)
            assert (got - numbers.tensors[f"{key}.{part}"]).abs().max() < states_within, key

    difference = outputs - numbers.tensors["target"][:, 1:].to(dtype)
    loss = difference.square().mean() + difference.abs().mean()
    assert loss.item() == pytest.approx(numbers.tensors["loss_mse_plus_l1"].item(), rel=1e-6)
    loss.backward()
    used = {ours: grad for published, grad in numbers.grads.items() if (ours := our_name(published)) is not None}
    assert set(used) == {parameter for parameter, _ in model.named_parameters()}
    for parameter, grad in used.items():
        got = model.get_parameter(parameter).grad
        assert ((got - grad).norm() / grad.norm()) < gradients_within, parameter
