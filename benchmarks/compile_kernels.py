"""Compile every Triton kernel for GPUs that are not there, and say what each thread of it takes.

    python benchmarks/compile_kernels.py            # sm_75, sm_80 and sm_90, every choice, the presets' widths
    python benchmarks/compile_kernels.py --quick    # sm_90, one choice, a small tile

One JSON object a line: registers, bytes of stack (spilled registers) and of shared memory, machine instructions, and
among them exchanges between threads. Exit status 1 if a kernel does not compile.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton as triton_package
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vmrnn_cli.scan import triton as kernels

INTEGERS = {"B", "H", "W", "L", "chunk", "chunks", "programs", "stride", "rows"}
LOW = {"x", "x_dbl", "z", "d_out"}  # what is bfloat16 when autocast is on
WIDTHS = ((256, 8), (512, 16), (1024, 32))  # D, R


def work(quick: bool) -> Iterator[tuple[Any, dict[str, Any], int]]:
    """Kernels with their constants and warps."""
    for D, R in WIDTHS[:1] if quick else WIDTHS:
        sizes = {"D": D, "N": 16, "R": R, "N_PAD": 16, "R_PAD": R, "TILE": 4 if quick else kernels.TILE}
        for kernel in (kernels._scan_kernel, kernels._adjoint_kernel):
            for choice in kernel.configs[-1:] if quick else kernel.configs:
                for final in (True, False):
                    flags = {"FINAL": final, "CHUNKED": True, "KEEP": final}
                    yield kernel.fn, sizes | choice.kwargs | flags, choice.num_warps
        yield kernels._gradient_kernel, sizes | kernels.gradient_constants(16), 1
        yield kernels._carry_kernel, sizes | {"REVERSED": True, "BLOCK_D": 128, "UNROLL": 8}, 4
        block = {"D": D, "TOKENS": kernels.CONV_TOKENS, "BLOCK_D": 64}
        for mirrored in (False, True):
            yield kernels._conv_kernel, block | {"MIRRORED": mirrored}, 8
        yield kernels._conv_gradient_kernel, block, 8
        gate = kernels._gate_constants(D)
        for kernel in (kernels._gate_kernel, kernels._gate_gradient_kernel):
            yield kernel, gate | {"ROWS": kernels.GATE_ROWS}, gate["num_warps"]


def compile_kernel(kernel: Any, constants: dict[str, Any], warps: int, architecture: int, low: bool) -> dict:
    """Compile one kernel and read the machine code's own figures."""
    names = kernel.arg_names
    constants = {name: constants[name] for name in names if name in constants}

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in INTEGERS:
            return "i32"
        return "fp32" if name == "eps" else "*bf16" if low and name in LOW else "*fp32"

    signature = {name: kind(name) for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    begin = time.perf_counter()
    compiled = triton_package.compile(
        ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": warps, **kernels.FUSED},
    )
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.asm["cubin"])
        usage, code = (
            subprocess.run(
                [knobs.nvidia.cuobjdump.path, option, file], capture_output=True, text=True, check=True
            ).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    figures = {name: int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK")}
    return {
        "kernel": kernel.__name__,
        "architecture": architecture,
        "inputs": "bfloat16" if low else "float32",
        "constants": {k: v for k, v in constants.items() if k not in ("N", "N_PAD", "R_PAD", "CHUNKED", "KEEP")},
        "warps": warps,
        "registers": figures["REG"],
        "stack_bytes": figures["STACK"],
        "shared_bytes": compiled.metadata.shared,
        "instructions": len(re.findall(r"/\*[0-9a-f]{4,6}\*/", code)),
        "exchanges": len(re.findall(r"\bSHFL\b", code)),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kernel", help="only kernels whose name has this in it")
    options = parser.parse_args()
    for architecture in (90,) if options.quick else (75, 80, 90):
        for kernel, constants, warps in work(options.quick):
            if options.kernel is None or options.kernel in kernel.__name__:
                print(json.dumps(compile_kernel(kernel, constants, warps, architecture, low=True)), flush=True)


if __name__ == "__main__":
    main()
