"""The compiled kernels and the recorded step on a real GPU: VMRNN_TEST_GPU=cuda pytest tests/test_gpu.py

TRITON_INTERPRET=1 VMRNN_TEST_GPU=cpu tries most of the tests themselves, interpreted.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import scan_inputs
import torch
from scan_inputs import distance

from vmrnn_cli import scan
from vmrnn_cli.devices import autocast
from vmrnn_cli.gpu import GraphedStep, record_cuda_graph
from vmrnn_cli.model import VMRNN, VMRNNConfig, rollout
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.scan import reference

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu_train

DEVICE = os.environ.get("VMRNN_TEST_GPU", "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="wants a GPU: set VMRNN_TEST_GPU=cuda")
needs_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="only on a GPU")
SHAPES = [(1, 1, 1, 8, 1), (2, 3, 5, 40, 2)]  # B, H, W, D, R
if DEVICE != "cpu":
    SHAPES += [(1, 33, 31, 256, 8), (16, 16, 16, 512, 16), (2, 9, 13, 1024, 32), (1, 64, 64, 72, 3)]


def gradients(tensors, dtype, backend):
    """Output and gradients of a scan whose x and x_dbl are in `dtype`."""
    x, x_dbl, *weights = (t.to(DEVICE) for t in tensors)
    leaves = [t.requires_grad_() for t in (x.to(dtype), x_dbl.to(dtype), *weights)]
    y = scan.selective_scan(*leaves, backend)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)], [t.detach() for t in leaves], dy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scan_matches_the_definition_and_itself(shape, dtype):
    got, leaves, dy = gradients(scan_inputs.inputs(*shape), dtype, "triton")
    doubles = [t.double().cpu() for t in leaves]
    y, states = reference.forward(*doubles)
    want = [y, *reference.backward(dy.double().cpu(), *doubles, states)]
    for a, b in zip(got, want, strict=True):  # the fast exponential errs by 2e-7, and errors add up along a path
        assert distance(a.cpu(), b) < (1e-5 if a.dtype == torch.float32 else 4e-3)
    again, _, _ = gradients(scan_inputs.inputs(*shape), dtype, "triton")
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize("N", [1, 3, 4])
def test_other_numbers_of_states(N):
    got, leaves, _ = gradients(scan_inputs.inputs(2, 5, 4, 24, 2, N=N), torch.float32, "triton")
    assert distance(got[0].cpu(), reference.forward(*(t.double().cpu() for t in leaves))[0]) < 1e-5


@pytest.mark.parametrize("shape", [s[:4] for s in SHAPES], ids=str)
def test_convolution_and_gate(shape):
    B, H, W, D = shape
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator) for s in ((B, H, W, 2 * D), (D, 1, 3, 3), (D,), (D,), (D,))]
    results = []
    for dtype, backend in ((torch.float64, "torch"), (torch.float32, "triton")):
        xz, weight, bias, scale, shift = leaves = [t.to(DEVICE, dtype).requires_grad_() for t in start]
        norm = torch.nn.LayerNorm(D).to(DEVICE, dtype)
        norm.weight, norm.bias = torch.nn.Parameter(scale.detach()), torch.nn.Parameter(shift.detach())
        x, z = xz.chunk(2, dim=-1)
        u = scan.conv_silu(x, weight, bias, backend)
        out = scan.norm_gate(u, z, norm, backend)
        grads = torch.autograd.grad((out * 3).sin().sum() + u.cos().sum(), [*leaves[:3], *norm.parameters()])
        results.append([u, out, *grads])
    assert all(distance(got, want) < 2e-5 for got, want in zip(results[1], results[0], strict=True))


def small(**changes):
    torch.manual_seed(0)
    return VMRNN(VMRNNConfig("B", 1, (16, 16), 4, 32, (2,), d_state=4, context=3, horizon=3, **changes)).eval()


def test_training_follows_the_same_gradient():
    model, context, results = small().to(DEVICE), torch.rand(3, 2, 1, 16, 12).to(DEVICE), []
    for backend in ("torch", "triton"):
        model.scan_backend = backend
        model.zero_grad()
        torch.stack(list(rollout(model, context, 2))).square().mean().backward()
        results.append([p.grad.clone() for p in model.parameters()])
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-4 * want.abs().max().item())


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_recorded_step_is_the_step(dtype):
    model, context = small().to(DEVICE), torch.rand(3, 1, 1, 16, 12).to(DEVICE)
    with torch.inference_mode(), autocast(torch.device(DEVICE), dtype):
        want = list(rollout(model, context, 4))
    step = GraphedStep(model, context[0], dtype)
    for _ in range(2):
        for a, b in zip(rollout(step, context, 4), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-5 if dtype == torch.float32 else 1e-2)


def test_a_recorded_training_step_is_the_step():
    device, runs = torch.device(DEVICE), []
    for record in (functools.partial(record_cuda_graph, warm_ups=2) if DEVICE != "cpu" else gpu_train.work_again, None):
        run = gpu_train.Training(gpu_train.TINY, gpu_train.TINY_RECIPE, device, torch.float32, record)
        for frames in (4, 5):  # recorded twice, as where clips grow longer
            clips = torch.rand(2, frames, 1, 64, 64, generator=torch.Generator().manual_seed(frames)).to(device)
            run.prepare(clips, frames - 2)
            told = [run.step(clips, 0.01, 0.9) for _ in range(3)]
        runs.append((told, dict(run.average.named_parameters())))
    (got, ours), (want, theirs) = runs
    np.testing.assert_allclose(got, want, rtol=1e-2)
    for name, average in ours.items():
        if name != "reconstruction.inflate.0.bias":  # a norm follows: its gradient is nothing but rounding
            torch.testing.assert_close(average, theirs[name], rtol=1e-2, atol=2e-3)


def test_forecasts_are_those_of_the_cpu():
    contexts = np.random.default_rng(0).random((2, 3, 1, 16, 12), np.float32)

    def stream(predictor, context):
        return (output.frame for output in predictor.stream(list(context), 4))

    want = [list(stream(Predictor(small(), device="cpu"), context)) for context in contexts]
    predictor = Predictor(small(), device=DEVICE, dtype="float32", scan_backend="triton")
    streams = [stream(predictor, context) for context in contexts]
    for got, right in zip(zip(*streams, strict=True), zip(*want, strict=True), strict=True):  # side by side
        np.testing.assert_allclose(np.stack(got), np.stack(right), atol=1e-4)
    np.testing.assert_allclose(predictor.batch(contexts, 4), np.stack([np.stack(w) for w in want]), atol=1e-4)
