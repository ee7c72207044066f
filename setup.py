"""Compile the native scan while pip installs, where a C compiler is found. Everything else is in pyproject.toml.

The objects are plain shared libraries with a C interface, called through ctypes: no Python or PyTorch headers, one per
instruction set. Each is optional: what does not compile is left out, the installation goes on, and `vmrnn doctor` says
which scan runs.
"""

import platform

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-ffp-contract=fast",
    "-fvisibility=default",
]
INSTRUCTION_SETS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"]


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


setup(
    ext_modules=[
        Extension(
            f"vmrnn_cli.scan._native_{name}",
            sources=["vmrnn_cli/scan/native/kernels.c"],
            depends=["vmrnn_cli/scan/native/simd.h"],
            extra_compile_args=FLAGS + flags,
            optional=True,
        )
        for name, flags in INSTRUCTION_SETS.items()
    ],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": AnyPythonWheel},
)
