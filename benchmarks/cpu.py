"""How fast VMRNN runs on this CPU, as ratios against references that run in the same process, turn by turn.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt, K = 4 directions.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from vmrnn_cli import benchmark, scan
from vmrnn_cli.model import VMRNN, rollout
from vmrnn_cli.networks import NETWORKS as PRESETS
from vmrnn_cli.scan import native

# Ratios aimed at, on two idle cores; README.md has those that are reached.
PRODUCT_TARGET = 2.0  # a step of vmrnn-b-kth against a 2048^3 matrix product
LOOP_TARGETS = {"vmrnn-d-mmnist": 1 / 80, "vmrnn-b-taxibj": 1 / 70}  # a step against one with a plain token loop
BACKWARD_TARGET = 3.5  # the scan's backward pass against its forward, 64x64
TRAINING_TARGET = 4.5  # forward and backward of vmrnn-d-mmnist against forward


def token_loop(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, backend: str
) -> Tensor:
    """The scan as plain PyTorch, after Mamba's reference implementation: directions by flips and transposes, everything
    discretised at once, and a loop over tokens. It computes the same; it is here to be timed against.
    """
    B, H, W, D = x.shape
    K, _, R = dt_weight.shape
    L, N = H * W, A_logs.shape[1]
    image = x.permute(0, 3, 1, 2)  # (B, D, H, W)
    rows, columns = image.reshape(B, D, L), image.transpose(2, 3).reshape(B, D, L)
    u = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], dim=1).view(B, K * D, L)
    images = x_dbl.permute(0, 3, 4, 1, 2)  # (B, K, R + 2N, H, W)
    ordered = [images[:, k].transpose(2, 3) if k % 2 else images[:, k] for k in range(K)]
    ordered = [t.reshape(B, -1, L).flip(-1) if k >= 2 else t.reshape(B, -1, L) for k, t in enumerate(ordered)]
    dt_r, Bs, Cs = torch.stack(ordered, dim=1).split([R, N, N], dim=2)  # (B, K, *, L)
    delta = F.softplus(torch.einsum("bkrl,kdr->bkdl", dt_r, dt_weight) + dt_bias[..., None]).view(B, K * D, L)
    Bs, Cs = (t[:, :, None].expand(B, K, D, N, L).reshape(B, K * D, N, L) for t in (Bs, Cs))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, -A_logs.exp()))
    inputs = torch.einsum("bdl,bdnl,bdl->bdln", delta, Bs, u)
    state, outputs = x.new_zeros(B, K * D, N), []
    for token in range(L):
        state = decay[:, :, token] * state + inputs[:, :, token]
        outputs.append(torch.einsum("bdn,bdn->bd", state, Cs[..., token]))
    y = (torch.stack(outputs, dim=-1) + u * Ds[:, None]).view(B, K, D, L)
    by_rows = y[:, 0] + y[:, 2].flip(-1)
    by_columns = (y[:, 1] + y[:, 3].flip(-1)).view(B, D, W, H).transpose(2, 3).reshape(B, D, L)
    return (by_rows + by_columns).view(B, D, H, W).permute(0, 2, 3, 1)


def compare(
    name: str,
    work: Callable[[], object],
    reference: Callable[[], object],
    repeats: int,
    target: float | None = None,
) -> dict:
    """Time both in turn; the ratio is taken pair by pair, so that a machine that slows down slows both."""
    times = benchmark.in_turn({"work": work, "reference": reference}, repeats)
    pairs = list(zip(times["work"], times["reference"], strict=True))
    ratios = sorted(a / b for a, b in pairs)
    return {
        "name": name,
        "ms": 1e3 * statistics.median(a for a, _ in pairs),
        "reference_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
        "target": target,
        "repeats": repeats,
    }


def network(name: str) -> tuple[VMRNN, Tensor]:
    config = PRESETS[name]
    torch.manual_seed(0)
    return VMRNN(config).eval(), torch.rand(1, config.image_channels, *config.image_size)


def steps(repeats: int) -> list[dict]:
    results = []
    with torch.inference_mode():
        model, frame = network("vmrnn-b-kth")
        _, states = model(frame)
        a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
        results.append(
            compare(
                "vmrnn-b-kth step / 2048^3 matrix product", lambda: model(frame, states), lambda: a @ b, repeats,
                PRODUCT_TARGET,
            )
        )  # fmt: skip
        for name, target in LOOP_TARGETS.items():
            model, frame = network(name)
            ours, states = model(frame)

            def plain(model: VMRNN = model, frame: Tensor = frame, states: tuple = states) -> Tensor:
                with mock.patch.multiple(scan, selective_scan=token_loop, cell=lambda *_: None):
                    return model(frame, states)[0]

            difference = (plain() - model(frame, states)[0]).abs().max().item()
            assert difference < 1e-4, difference
            result = compare(
                f"{name} step / the same with a plain token loop", lambda m=model, f=frame, s=states: m(f, s), plain,
                max(3, repeats // 5), target,
            )  # fmt: skip
            results.append(result | {"times_faster": 1 / result["ratio"]})
    return results


SCANS = [(64, 256), (32, 256), (16, 512), (8, 1024), (8, 256)]  # side of the grid, D


def libraries() -> list[native.Library]:
    """The native scan for every instruction set that is compiled and runs here, the widest first."""
    found = []
    for isa in reversed(native.INSTRUCTION_SETS):
        with contextlib.suppress(OSError):
            found.append(native.load(isa))
    return found


def passes(
    leaves: list[Tensor], backend: str, library: native.Library | None = None
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The forward and the backward pass of one scan, ready to be timed."""

    def on(work: Callable[[], Any]) -> Callable[[], Any]:
        if library is None:
            return work

        def run() -> Any:
            with mock.patch.object(native, "load", lambda: library):
                return work()

        return run

    @torch.no_grad()
    def forward() -> Tensor:
        return scan.selective_scan(*leaves, backend)

    y = on(lambda: scan.selective_scan(*leaves, backend))()
    backward = functools.partial(torch.autograd.grad, y, leaves, torch.randn_like(y), retain_graph=True)
    return on(forward), on(backward)


def scans(repeats: int) -> list[dict]:
    """Each backend's forward pass against the fastest backend's, and its backward pass against its own forward."""
    results = []
    for side, D in SCANS:
        R = D // 32
        torch.manual_seed(0)
        tensors = [
            torch.randn(1, side, side, D), torch.randn(1, side, side, 4, R + 32), torch.randn(4, D, R) * R**-0.5,
            torch.randn(4, D) - 3, torch.arange(1.0, 17).log().repeat(4 * D, 1), torch.ones(4 * D),
        ]  # fmt: skip
        leaves = [t.requires_grad_() for t in tensors]
        contenders = {library.instruction_set: passes(leaves, "native", library) for library in libraries()}
        contenders |= {backend: passes(leaves, backend) for backend in ("torch", "reference")}
        fastest = next(iter(contenders))
        for name, (forward, backward) in contenders.items():
            times = max(3, repeats // 4) if name in ("torch", "reference") else repeats
            where = f"{side}x{side} D {D} {name}"
            if name != fastest:
                results.append(compare(f"{where} forward / {fastest} forward", forward, contenders[fastest][0], times))
            target = BACKWARD_TARGET if (side, name) == (64, fastest) else None
            results.append(compare(f"{where} backward / forward", backward, forward, times, target))
    return results


def training(repeats: int) -> list[dict]:
    model, _ = network("vmrnn-d-mmnist")
    clips = torch.rand(20, 4, 1, 64, 64)

    def train() -> None:
        outputs = torch.stack(list(rollout(model, clips[:10], 10)))
        F.mse_loss(outputs, clips[1:]).backward()

    @torch.no_grad()
    def forward() -> None:
        list(rollout(model, clips[:10], 10))

    name = "vmrnn-d-mmnist batch 4, forward + backward / forward"
    return [compare(name, train, forward, max(2, repeats // 7), TRAINING_TARGET)]


def machine() -> dict:
    here = benchmark.machine()
    return here | {"scan": f"native {native.load().instruction_set}" if native.why_unavailable() is None else "torch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--scans", action="store_true", help="also each backend, forward and backward")
    parser.add_argument("--training", action="store_true", help="also a training step; takes minutes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = steps(options.repeats)
    results += scans(options.repeats) if options.scans else []
    results += training(options.repeats) if options.training else []
    if options.json:
        print(json.dumps({"machine": machine(), "results": results}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"{'':<62} {'ms':>9} {'reference':>10} {'ratio':>9} {'min':>9} {'max':>9} {'target':>7}  repeats")
    for r in results:
        target = f"{r['target']:.4g}" if r["target"] else ""
        extra = f"  {r['times_faster']:.0f} times faster" if "times_faster" in r else ""
        print(
            f"{r['name']:<62} {r['ms']:9.2f} {r['reference_ms']:10.2f} {r['ratio']:9.4f} {r['ratio_min']:9.4f} "
            f"{r['ratio_max']:9.4f} {target:>7}  {r['repeats']}{extra}"
        )


if __name__ == "__main__":
    main()
