"""Compile the native kernels. Everything else is in pyproject.toml.

The objects are plain shared libraries with a C interface, called through ctypes: no Python or PyTorch headers, one per
instruction set. There are two ways:

    pip install .                        for this machine, where a C compiler is found; else without
    VMRNN_WHEEL=all python -m build      one wheel for all platforms, cross-compiled by the C compiler in `ziglang`

Of the first, each object is optional: what does not compile is left out, the installation goes on, and `vmrnn doctor`
says which scan runs. The second makes the same bytes each time, and fails where an object does.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

FOR_ALL = os.environ.get("VMRNN_WHEEL") == "all"
ZIG = "ziglang==0.17.1"  # another one would make other bytes
SOURCE = "vmrnn_cli/scan/native/kernels.c"
HEADERS = ["vmrnn_cli/scan/native/product.h", "vmrnn_cli/scan/native/simd.h"]
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
]
INSTRUCTION_SETS = {"baseline": [], "avx2": ["-mavx2", "-mfma"]}
INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", *INSTRUCTION_SETS["avx2"]]

# Of each platform, as `vmrnn_cli.scan.native.platform_name` calls it: zig's name for it, and the objects' suffix. On
# Linux the objects name no library, so that they take what they need of the C library that Python has, whichever it is.
PLATFORMS = {
    "linux-x86_64": ("x86_64-linux-musl", ".so"),
    "linux-aarch64": ("aarch64-linux-musl", ".so"),
    "macos-x86_64": ("x86_64-macos.11.0", ".dylib"),
    "macos-aarch64": ("aarch64-macos.11.0", ".dylib"),
    "windows-x86_64": ("x86_64-windows-gnu", ".dll"),
    "windows-aarch64": ("aarch64-windows-gnu", ".dll"),
}
WINDOWS_PARTS = ("heap", "private", "string")


def instruction_sets(machine: str) -> dict[str, list[str]]:
    """Names and flags; other machines than x86-64 have their vectors in the baseline."""
    return INSTRUCTION_SETS if machine in ("x86_64", "amd64") else {"baseline": []}


def cross_compile(folder: Path) -> None:
    """Make the objects of all platforms."""
    import ziglang

    include = Path(ziglang.__file__).parent / "lib" / "libc" / "include"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (target, suffix) in PLATFORMS.items():
        flags = ["-g0", "-s", "-shared", "-fno-sanitize=all", "-fno-stack-protector", "-target", target]
        if "-linux-" in target:
            flags += ["-nostdlib", "-isystem", f"{include / target}", "-isystem", f"{include / 'generic-musl'}"]
        elif "-windows-" in target:
            flags += ["-nostdlib", "-isystem", f"{include / 'any-windows-any'}", "-DVMRNN_NO_RUNTIME"]
            flags += ["-rtlib=compiler-rt", *(f"-lapi-ms-win-crt-{part}-l1-1-0" for part in WINDOWS_PARTS)]
        for instruction_set, more in instruction_sets(name.partition("-")[2]).items():
            file = f"{name}-{instruction_set}{suffix}"
            with tempfile.TemporaryDirectory() as temporary:  # zig writes an import library beside a DLL
                made = Path(temporary) / file
                flags_of_file = [f"-Wl,-install_name,{file}"] if "-macos" in target else []  # else its path
                command = [
                    sys.executable,
                    "-m",
                    "ziglang",
                    "cc",
                    *FLAGS,
                    *more,
                    SOURCE,
                    *flags,
                    *flags_of_file,
                    "-o",
                    f"{made}",
                ]
                subprocess.run(command, check=True)
                shutil.copyfile(made, folder / file)
            (folder / file).chmod(0o644)


class BuildForAll(build_py):
    """Put the objects of all platforms beside the modules."""

    def run(self) -> None:
        super().run()
        cross_compile(Path(self.build_lib) / "vmrnn_cli" / "scan" / "prebuilt")


class WheelForAll(bdist_wheel):
    """Give all files the same permissions, whoever unpacked the source."""

    def write_wheelfile(self, *arguments: Any, **options: Any) -> None:
        super().write_wheelfile(*arguments, **options)
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


class BuildNative(build_ext):
    """Name the objects without a Python ABI, and link them against nothing."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def get_libraries(self, ext: Extension) -> list[str]:
        return []

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


class AnyPythonWheel(bdist_wheel):
    """The wheel depends on the platform (it holds machine code) but not on the version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


if FOR_ALL:
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1735689600")  # of all files in the wheel
    setup(setup_requires=[ZIG], cmdclass={"build_py": BuildForAll, "bdist_wheel": WheelForAll})
else:
    setup(
        ext_modules=[
            Extension(
                f"vmrnn_cli.scan._native_{name}",
                sources=[SOURCE],
                depends=HEADERS,
                extra_compile_args=FLAGS + flags,
                optional=True,
            )
            for name, flags in instruction_sets(platform.machine().lower()).items()
        ],
        cmdclass={"build_ext": BuildNative, "bdist_wheel": AnyPythonWheel},
    )
