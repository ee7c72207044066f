"""How fast VMRNN runs on this CPU, as ratios against references that run in the same process, turn by turn.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt, K = 4 directions.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from vmrnn_cli import scan
from vmrnn_cli.checkpoints import PRESETS
from vmrnn_cli.model import VMRNN, rollout
from vmrnn_cli.scan import native


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


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(name: str, work: Callable[[], object], reference: Callable[[], object], repeats: int) -> dict:
    """Time both in turn; the ratio is taken pair by pair, so that a machine that slows down slows both."""
    work(), reference()
    pairs = [(seconds(work), seconds(reference)) for _ in range(repeats)]
    ratios = sorted(a / b for a, b in pairs)
    return {
        "name": name,
        "ms": 1e3 * statistics.median(a for a, _ in pairs),
        "reference_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
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
            compare("vmrnn-b-kth step / 2048^3 matrix product", lambda: model(frame, states), lambda: a @ b, repeats)
        )
        for name in ("vmrnn-d-mmnist", "vmrnn-b-taxibj"):
            model, frame = network(name)
            ours, states = model(frame)

            def plain(model: VMRNN = model, frame: Tensor = frame, states: tuple = states) -> Tensor:
                with mock.patch.object(scan, "selective_scan", token_loop):
                    return model(frame, states)[0]

            difference = (plain() - model(frame, states)[0]).abs().max().item()
            assert difference < 1e-4, difference
            result = compare(
                f"{name} step / the same with a plain token loop", lambda m=model, f=frame, s=states: m(f, s), plain,
                max(3, repeats // 5),
            )  # fmt: skip
            results.append(result | {"times_faster": 1 / result["ratio"]})
    return results


SCANS = [(64, 256), (32, 256), (16, 512), (8, 1024), (8, 256)]


def scans(repeats: int) -> list[dict]:
    """Each backend's forward against the native one on the best instruction set, and backward against forward."""
    results = []
    best = native.load()
    for side, D in SCANS:
        R = D // 32
        torch.manual_seed(0)
        tensors = [
            torch.randn(1, side, side, D), torch.randn(1, side, side, 4, R + 32), torch.randn(4, D, R) * R**-0.5,
            torch.randn(4, D) - 3, torch.arange(1.0, 17).log().repeat(4 * D, 1), torch.ones(4 * D),
        ]  # fmt: skip
        leaves = [t.requires_grad_() for t in tensors]

        def forward(backend: str, leaves: list[Tensor] = leaves) -> Tensor:
            with torch.no_grad():
                return scan.selective_scan(*leaves, backend)

        for isa in native.INSTRUCTION_SETS:
            try:
                library = native.load(isa)
            except OSError:
                continue
            with mock.patch.object(native, "load", lambda library=library: library):
                y = scan.selective_scan(*leaves, "native")
                dy = torch.randn_like(y)
                backward = functools.partial(torch.autograd.grad, y, leaves, dy, retain_graph=True)
                results.append(
                    compare(
                        f"{side}x{side} D {D} {isa} backward / forward", backward, lambda: forward("native"), repeats
                    )
                )

            def ours(library: native.Library = library) -> Tensor:
                with mock.patch.object(native, "load", lambda: library):
                    return forward("native")

            def fastest() -> Tensor:
                with mock.patch.object(native, "load", lambda: best):
                    return forward("native")

            results.append(
                compare(f"{side}x{side} D {D} {isa} forward / {best.instruction_set} forward", ours, fastest, repeats)
            )
        results.append(
            compare(
                f"{side}x{side} D {D} torch forward / native forward", lambda: forward("torch"),
                lambda: forward("native"), max(3, repeats // 4),
            )
        )  # fmt: skip
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

    return [compare("vmrnn-d-mmnist batch 4, forward + backward / forward", train, forward, max(2, repeats // 7))]


def machine() -> dict:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] \
        if cpuinfo.exists() else []  # fmt: skip
    return {
        "cpu": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "instruction_set": native.load().instruction_set,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip() or "unknown",
    }


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
    print(f"{'':<62} {'ms':>9} {'reference':>10} {'ratio':>8} {'min':>8} {'max':>8}  repeats")
    for r in results:
        extra = f"  {r['times_faster']:.0f} times faster" if "times_faster" in r else ""
        print(
            f"{r['name']:<62} {r['ms']:9.2f} {r['reference_ms']:10.2f} {r['ratio']:8.4f} {r['ratio_min']:8.4f} "
            f"{r['ratio_max']:8.4f}  {r['repeats']}{extra}"
        )


if __name__ == "__main__":
    main()
