"""Objects for other platforms: run where an emulator is, else read.

What is compiled by `VMRNN_WHEEL=all python -m build` is compiled here alike; that wants the package `ziglang`. Windows'
run in Wine, those for 64-bit ARM in QEMU; macOS's are only read.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import PACKAGE, ROOT
from scan_inputs import inputs

from vmrnn_cli import scan
from vmrnn_cli.model import VSB
from vmrnn_cli.scan import native, reference

KERNELS = {
    "lanes", "tile", "panel", "instruction_set", "scan_forward", "scan_backward", "conv_forward", "conv_backward",
    "gate_forward", "gate_backward", "block_forward", "cell_forward",
}  # fmt: skip
needs_zig = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the package ziglang is not there")
WINE = shutil.which("wine64") or shutil.which("wine64", path="/usr/lib/wine")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.fixture(scope="module")
def recipe():
    """What setup.py defines, nothing of it run."""
    with mock.patch("setuptools.setup"), mock.patch.dict(os.environ):
        return runpy.run_path(str(ROOT / "setup.py"))


@pytest.fixture(scope="module")
def objects(recipe, tmp_path_factory):
    """A folder with the objects of all platforms."""
    folder = tmp_path_factory.mktemp("objects")
    before = Path.cwd()
    os.chdir(PACKAGE.parent)  # which has the sources
    try:
        recipe["cross_compile"](folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A file with a problem for each kernel and its solution in float64, as check_objects.c reads it."""
    B, H, W, E, D, R, N = 2, 5, 7, 12, 24, 3, 5
    torch.manual_seed(0)
    given = inputs(B, H, W, D, R, N=N, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in given]
    dy = torch.randn(B, H, W, D, dtype=torch.float64)
    y, states = reference.forward(*[t.detach() for t in leaves])
    dx, dx_dbl, d_dt, d_bias, dA, dD = reference.backward(dy, *[t.detach() for t in leaves], states)
    d_weights = torch.cat([d_dt, d_bias[..., None], dA.view(4, D, N), dD.view(4, D, 1)], -1).transpose(0, 1)
    block = VSB(E, N, 0.0, takes_hidden=True).double()
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    s = block.ss2d
    tensors = (given[2], given[3], given[4], given[5])
    s.rank = R
    for name, t in zip(("dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"), tensors, strict=True):
        setattr(s, name, torch.nn.Parameter(t.detach()))
    s.x_proj_weight = torch.nn.Parameter(0.2 * torch.randn(4, R + 2 * N, D, dtype=torch.float64))
    s.scan_backend = "reference"
    x, z, dout = given[0].detach().requires_grad_(), dy.clone().requires_grad_(), torch.randn_like(dy)
    conv = scan.conv_silu(x, s.conv2d.weight, s.conv2d.bias, "torch")
    conv_gradients = torch.autograd.grad(conv, (x, s.conv2d.weight, s.conv2d.bias), dy)
    gate = F.layer_norm(x, (D,), s.out_norm.weight, s.out_norm.bias) * F.silu(z)
    gate_gradients = torch.autograd.grad(gate, (x, z, s.out_norm.weight, s.out_norm.bias), dout)
    tokens, hidden = torch.randn(2, B, H, W, E, dtype=torch.float64).unbind()
    f, g = torch.sigmoid(tokens), torch.tanh(tokens)
    cell = f * (hidden + g)
    arrays = [
        *given, dy, y, dx, dx_dbl, d_weights, s.conv2d.weight, s.conv2d.bias, conv, conv_gradients[0],
        torch.cat([conv_gradients[1].flatten(1), conv_gradients[2][:, None]], 1), s.out_norm.weight, s.out_norm.bias,
        dout, gate, *gate_gradients[:2], torch.stack(gate_gradients[2:]), tokens, hidden, block.norm.weight,
        block.norm.bias, block.mix.weight, block.mix.bias, s.in_proj.weight, s.x_proj_weight, s.out_proj.weight,
        block(tokens, hidden), f * torch.tanh(cell), cell,
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("numbers") / "numbers"
    with path.open("wb") as file:
        file.write(np.array([B, H, W, E, D, R, N], np.int32).tobytes())
        for t in arrays:
            values = t.detach().numpy().astype(np.float32).ravel()
            file.write(np.int32(values.size).tobytes() + values.tobytes())
    return path


def zig(recipe, target, flags, output):
    command = [sys.executable, "-m", "ziglang", "cc", *recipe["FLAGS"], "-fno-sanitize=all", "-target", target, *flags]
    sources = ["-I", PACKAGE / "scan" / "native", ROOT / "tests" / "check_objects.c"]
    subprocess.run([*map(str, [*command, *sources]), "-lm", "-o", str(output)], check=True)
    return output


def supported():
    """The instruction sets that this processor has, as far as its objects are here."""
    found = []
    for isa in native.INSTRUCTION_SETS:
        try:
            native.load(isa)
        except OSError:
            continue
        found.append(isa)
    return found or ["baseline"]


def assert_right(done):
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 15, done.stdout


@needs_zig
@pytest.mark.parametrize("target", ["x86_64-linux-musl", "aarch64-linux-musl"])
def test_linux_computes_what_the_reference_does(recipe, numbers, tmp_path, target):
    native_here = target.startswith("x86_64") and sys.platform == "linux"
    if not native_here and QEMU is None:
        pytest.skip("no qemu-aarch64")
    program = zig(recipe, target, ["-static"], tmp_path / "check")
    run = [program, numbers] if native_here else [QEMU, program, numbers]
    assert_right(subprocess.run(run, capture_output=True, text=True))


@needs_zig
def test_windows_computes_what_the_reference_does(recipe, objects, numbers, tmp_path):
    if WINE is None:
        pytest.skip("no Wine")
    program = zig(recipe, "x86_64-windows-gnu", [], tmp_path / "check.exe")
    environment = os.environ | {"WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"}
    shutil.copy(numbers, tmp_path / "numbers")
    for isa in supported():
        shutil.copy(objects / f"windows-x86_64-{isa}.dll", tmp_path / "kernels.dll")
        done = subprocess.run(
            [WINE, program, "numbers", "kernels.dll"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert_right(done)


# ---- read


def read(path, form, offset):
    return struct.unpack_from(f"<{form}", path.read_bytes(), offset)


@needs_zig
def test_windows_exports_the_kernels_and_imports_the_heap_alone(objects):
    for path in objects.glob("*.dll"):
        data = path.read_bytes()
        (at,) = read(path, "I", 0x3C)
        machine, sections, _, _, _, optional, traits = read(path, "HHIIIHH", at + 4)
        assert (data[:2], data[at : at + 4]) == (b"MZ", b"PE\0\0")
        assert machine == {"x86_64": 0x8664, "aarch64": 0xAA64}[path.stem.split("-")[1]]
        assert traits & 0x2000  # a DLL
        assert read(path, "H", at + 24) == (0x20B,)  # 64-bit: one calling convention there is
        table = [struct.unpack_from("<8sIIII", data, at + 24 + optional + 40 * i) for i in range(sections)]

        def place(address, table=table):
            return next(a - v + address for _, s, v, r, a in table if v <= address < v + max(s, r))

        (exported,) = struct.unpack_from("<I", data, at + 24 + 112)
        _, _, _, _, _, _, _, names, _, addresses, _ = struct.unpack_from("<IIHHIIIIIII", data, place(exported))
        text = [
            data[
                (start := place(struct.unpack_from("<I", data, place(addresses) + 4 * i)[0])) : data.index(b"\0", start)
            ]
            for i in range(names)
        ]
        assert {name.decode().removeprefix("vmrnn_") for name in text} == KERNELS
        (imports,) = struct.unpack_from("<I", data, at + 24 + 120)
        libraries, entry = [], place(imports)
        while name := struct.unpack_from("<I", data, entry + 12)[0]:
            start = place(name)
            libraries.append(data[start : data.index(b"\0", start)].decode())
            entry += 20
        assert libraries == ["api-ms-win-crt-heap-l1-1-0.dll"]


@needs_zig
def test_macos_wants_version_11_and_is_signed(objects):
    for path in objects.glob("*.dylib"):
        data = path.read_bytes()
        magic, processor, _, kind, commands = struct.unpack_from("<IIIII", data)
        machine = path.stem.split("-")[1]
        assert (magic, processor, kind) == (0xFEEDFACF, {"x86_64": 0x01000007, "aarch64": 0x0100000C}[machine], 6)
        found, at = {}, 32
        for _ in range(commands):
            command, size = struct.unpack_from("<II", data, at)
            found.setdefault(command, []).append(at)
            at += size
        (version,) = found[0x32]  # LC_BUILD_VERSION: platform, least system
        assert struct.unpack_from("<II", data, version + 8) == (1, 11 << 16)
        loaded = [data[a + 24 : data.index(b"\0", a + 24)] for a in found[0x0C]]
        assert loaded == [b"/usr/lib/libSystem.B.dylib"]
        (symbols,) = found[0x02]
        offset, count, strings, _ = struct.unpack_from("<IIII", data, symbols + 8)
        names = set()
        for i in range(count):
            index, type_, _, _, _ = struct.unpack_from("<IBBHQ", data, offset + 16 * i)
            if type_ & 0x0F == 0x0F:  # defined, and seen from outside
                start = strings + index
                names.add(data[start : data.index(b"\0", start)].decode().removeprefix("_vmrnn_"))
        assert names - {"__mh_dylib_header", "___dso_handle"} == KERNELS  # the linker's own
        if machine == "aarch64":  # which runs nothing unsigned
            signature = struct.unpack_from("<I", data, found[0x1D][0] + 8)[0]
            assert data[signature : signature + 4] == bytes.fromhex("fade0cc0")


@needs_zig
def test_linux_names_no_library(objects):
    for path in objects.glob("linux-*.so"):
        data = path.read_bytes()
        assert data[:5] == b"\x7fELF\x02"
        assert read(path, "H", 18) == ({"x86_64": 62, "aarch64": 183}[path.stem.split("-")[1]],)
        headers, size, count = read(path, "Q", 32)[0], *read(path, "HH", 54)
        segments = [struct.unpack_from("<IIQQQQ", data, headers + size * i) for i in range(count)]
        (dynamic,) = [(offset, length) for kind, _, offset, _, _, length in segments if kind == 2]
        tags = [struct.unpack_from("<qQ", data, dynamic[0] + 16 * i)[0] for i in range(dynamic[1] // 16)]
        assert 1 not in tags[: tags.index(0)]  # DT_NEEDED


@needs_zig
def test_the_same_source_makes_the_same_objects(recipe, objects, tmp_path, monkeypatch):
    """All there are, by the names that are looked for, and twice the same bytes."""
    names = {f"{name}-{isa}{suffix}" for name, (_, suffix) in recipe["PLATFORMS"].items()
             for isa in recipe["instruction_sets"](name.partition("-")[2])}  # fmt: skip
    assert {path.name for path in objects.iterdir()} == names
    assert sum(path.stat().st_size for path in objects.iterdir()) < 2**20
    monkeypatch.chdir(PACKAGE.parent)
    recipe["cross_compile"](tmp_path / "again")
    assert all((tmp_path / "again" / path.name).read_bytes() == path.read_bytes() for path in objects.iterdir())


# ---- which one runs


@pytest.mark.parametrize(
    ("system", "machine", "build", "file"),
    [
        ("linux", "x86_64", "linux-x86_64", "linux-x86_64-avx2.so"),
        ("linux", "aarch64", "linux-aarch64", "linux-aarch64-avx2.so"),
        ("darwin", "arm64", "macosx-11.0-universal2", "macos-aarch64-avx2.dylib"),
        ("darwin", "x86_64", "macosx-11.0-universal2", "macos-x86_64-avx2.dylib"),
        ("win32", "ARM64", "win-amd64", "windows-x86_64-avx2.dll"),
        ("win32", "ARM64", "win-arm64", "windows-aarch64-avx2.dll"),
    ],
)
def test_an_object_is_looked_for_by_platform(system, machine, build, file, monkeypatch, tmp_path):
    monkeypatch.setattr(native.sys, "platform", system)
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    monkeypatch.setattr(native.sysconfig, "get_platform", lambda: build)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    assert native.object_path("avx2") == tmp_path / "prebuilt" / file
    assert native.origin() == f"prebuilt for {file.rpartition('-')[0]}"
    for isa in ("avx2", "baseline"):
        (tmp_path / f"_native_{isa}.so").touch()
    assert native.object_path("avx2") == tmp_path / "_native_avx2.so"
    assert native.origin() == "compiled here"
