"""The plan of the package: what may import what."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys

import pytest
from commands import PACKAGE

import vmrnn_cli

FILES = {
    ".".join(("vmrnn_cli", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


@functools.cache
def imported(module, *, at_import_only=False):
    """Full names of what a module imports, in functions too unless told otherwise; not what only types need."""
    names = set()
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return [visit(child) for child in node.orelse]
        if at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:  # a module of a package, or a name in it
                names.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base)
        return [visit(child) for child in ast.iter_child_nodes(node)]

    visit(ast.parse(FILES[module].read_text()))
    return names


def reached(module):
    """What a module of ours imports, and what that imports, and so on."""
    found, todo = set(), [module]
    while todo:
        new = {name for name in imported(todo.pop()) if name not in found}
        found |= new
        todo += [name for name in new if name in FILES]
    return found


def test_the_walk_sees_what_there_is():
    assert "vmrnn_cli.predictor" in imported("vmrnn_cli.train")
    assert "vmrnn_cli.pretrained" in imported("vmrnn_cli.weights")  # in a function
    assert "vmrnn_cli.pretrained" not in imported("vmrnn_cli.weights", at_import_only=True)
    assert "vmrnn_cli.train" not in imported("vmrnn_cli.training_log")  # for types only
    assert {"vmrnn_cli.scan.native", "vmrnn_cli.errors", "torch"} <= imported("vmrnn_cli.scan")


def test_no_module_imports_itself_by_a_detour():
    """Nor does the package's own `__init__`, which hands out names of its modules."""
    assert [module for module in FILES if module in reached(module)] == []


def test_the_model_stands_on_torch_einops_and_the_scan_alone():
    names = {name for name in imported("vmrnn_cli.model") if name.partition(".")[0] not in sys.stdlib_module_names}
    assert names == {"torch", "torch.nn.functional", "einops", "vmrnn_cli.config", "vmrnn_cli.scan"}


@pytest.mark.parametrize("part", ["data", "scan", "model"])
def test_data_scan_and_model_know_no_command_and_no_writer(part):
    above = [f"vmrnn_cli.{name}" for name in ("commands", "cli", "writers", "render", "forecast", "predictor", "batch")]
    modules = [module for module in FILES if module.startswith(f"vmrnn_cli.{part}")]
    assert modules
    for module in modules:
        assert not [name for name in reached(module) if name.startswith((*above, "typer"))], module


def test_what_answers_at_once_imports_no_torch():
    modules = ("config", "networks", "recipes", "weights", "errors", "hub", "commands.options", "cli", "batch")
    code = f"import sys; {'; '.join(f'import vmrnn_cli.{m}' for m in modules)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_hands_out_what_it_names():
    assert [getattr(vmrnn_cli, name).__name__ for name in vmrnn_cli.__all__] == vmrnn_cli.__all__


def test_there_is_one_class_of_each_name():
    """What is handed out is what the package itself builds, loads and takes."""
    for name, module in (("VMRNN", "model"), ("MotionVMRNN", "motion_network"), ("Forecast", "forecast")):
        assert getattr(vmrnn_cli, name) is getattr(importlib.import_module(f"vmrnn_cli.{module}"), name)
    names = [node.name for path in FILES.values() for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]  # fmt: skip
    assert sorted(names) == sorted(set(names))


def test_commands_are_short():
    """They parse, call and print; typer's options, which are most of it, included."""
    for path in (PACKAGE / "commands").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 64, node.name


def test_help_names_every_environment_variable(run_command):
    named = {name for path in FILES.values() for name in re.findall(r'"(VMRNN_[A-Z_]+)"', path.read_text())}
    assert "VMRNN_CACHE" in named
    assert all(name in run_command("--help")[1] for name in named), named


def test_training_on_arrays_wants_none_of_the_other_libraries(tmp_path):
    """No ffmpeg, no downloads, no SSIM, no charts: PyTorch is enough."""
    code = """
import sys
from pathlib import Path
for name in ("imageio_ffmpeg", "pooch", "requests", "skimage", "matplotlib", "huggingface_hub", "typer", "rich"):
    sys.modules[name] = None
import numpy as np
import vmrnn_cli, vmrnn_cli.model, vmrnn_cli.train
from vmrnn_cli import data, recipes
np.save("clips.npy", np.zeros((8, 5, 1, 16, 16), np.uint8))
given = {"data": "clips.npy", "context": 3, "horizon": 2, "steps": 1, "batch_size": 2}
trainer = vmrnn_cli.train.Trainer(recipes.make_config({}, given), Path("run"))
assert [report.evaluation is not None for report in trainer.fit()] == [True]
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()
