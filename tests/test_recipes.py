"""Settings of a run: preset, file and command line, one over the other."""

from __future__ import annotations

import pytest

from vmrnn_cli import recipes
from vmrnn_cli.networks import NETWORKS


def test_every_recipe_is_that_of_a_network():
    assert set(recipes.RECIPES) == set(NETWORKS)
    for name in recipes.RECIPES:
        config = recipes.make_config({}, {"preset": name})
        assert (config.context, config.horizon) == (NETWORKS[name].context, NETWORKS[name].horizon)


def test_help_names_all_of_them(run_command):
    for command, table in (("train", recipes.RECIPES), ("info", NETWORKS)):
        code, out, _ = run_command(command, "--help")
        assert code == 0
        assert all(name in out for name in table)


def test_config_file_under_flags():
    config = recipes.make_config({"lr": 1, "seed": 3, "preset": "vmrnn-b-taxibj"}, {"seed": 5, "data": "x", "lr": None})
    assert (config.lr, config.seed, config.context, config.optimizer) == (1.0, 5, 4, "adam")
    assert recipes.make_config({}, {"preset": "vmrnn-d-mmnist"}).loss == "mse+l1"
    assert recipes.make_config({}, {"init": "vmrnn-d-motion"}).preset == "vmrnn-d-motion"
    assert recipes.make_config({"init": "vmrnn-d-motion"}, {"preset": "tiny"}).preset == "tiny"
    assert recipes.make_config({}, {"init": "runs/mine/best"}).preset == "tiny"
    for limits in (
        recipes.make_config({}, {"steps": 5, "preset": "vmrnn-b-bikenyc"}),
        recipes.make_config({"steps": 5}, {"preset": "vmrnn-d-mmnist"}),
    ):
        assert (limits.steps, limits.epochs, limits.max_time) == (5, 0, 0)  # not those of the preset


def test_config_survives_toml():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    config = recipes.make_config({"curriculum": [[0.5, 3, 2]]}, {"steps": 5, "data": 'a "b"\\c'})
    assert recipes.make_config(tomllib.loads(recipes.config_to_toml(config)), {}) == config
