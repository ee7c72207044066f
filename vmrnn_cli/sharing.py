"""The networks as other programs meet them: they load, save and share themselves by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelHubMixin

from . import hub, pretrained, weights
from .errors import InputError
from .model import VMRNN, ScanNetwork
from .motion_network import MotionVMRNN
from .outputs import atomic_folder

if TYPE_CHECKING:
    from .networks import Network

__all__ = ["VMRNN", "MotionVMRNN"]

_CARD = """---
{{ card_data }}
---

# VMRNN

Predicts the next frames of a video ([paper]({{ paper_url }})):

    vmrnn predict clip.mp4 --weights OWNER/NAME
"""


class _OnTheHub(
    ModelHubMixin,
    library_name="vmrnn",
    tags=["video-prediction"],
    paper_url="https://arxiv.org/abs/2403.16536",
    model_card_template=_CARD,
):
    """A network as huggingface_hub sees it: a folder of config.json, model.safetensors and a README.md."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def _save_pretrained(self, save_directory: Path) -> None:
        pretrained.save_model(self._network, save_directory, half=False)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        with hub.pushing(repo_id, options.get("token")):
            return super().push_to_hub(repo_id, **options)


def _from_pretrained(cls: type[Network], name: str | Path, *, revision: str | None = None, **options: Any) -> Network:
    """Load weights by bundled name, folder or file, or from the Hub as `owner/name`.

    Args:
        cls: the class of the network.
        name: as for `vmrnn_cli.weights.load`.
        revision: branch, tag or commit of a Hub repository.
        options: token, cache_dir, force_download, local_files_only, as everywhere in huggingface_hub.

    Returns:
        The network on the CPU, in float32 and in evaluation mode.

    Raises:
        InputError: there are no such weights, they are not those of such a network, or the Hub refuses.
        VMRNNError: the Hub or the network fails.
    """
    return pretrained.load_model(weights.locate(name, revision, **options), cls)


def _save_pretrained(network: Network, save_directory: str | Path, **options: Any) -> str | None:
    """Write a weights folder, in float32, over one that is there; a README.md that is there stays.

    Args:
        network: to be saved.
        save_directory: made if need be, parents included.
        options: those of `huggingface_hub.ModelHubMixin.save_pretrained`.

    Raises:
        InputError: the folder cannot be written to.
        VMRNNError: the disk fails.
    """
    target = Path(save_directory)
    options.setdefault("repo_id", target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {target.parent}: {error.strerror}", "name another folder") from error
    with atomic_folder(target, overwrite=True) as folder:
        address = _OnTheHub(network).save_pretrained(folder, **options)
        if (target / hub.CARD_NAME).exists():
            (folder / hub.CARD_NAME).unlink()
    return address


def _push_to_hub(network: Network, repo_id: str, **options: Any) -> str:
    """Upload the network, in float32, to `owner/name`, which is made if need be. Returns the address of the commit.

    Args:
        network: to be uploaded.
        repo_id: owner/name.
        options: those of `huggingface_hub.ModelHubMixin.push_to_hub`: private, branch, commit_message, ...

    Raises:
        InputError: the Hub refuses, or there is no token.
        VMRNNError: the Hub or the network fails.
    """
    return _OnTheHub(network).push_to_hub(repo_id, **options)


# `model.py` is the paper and stands on PyTorch alone; what comes from this package by name can be shared as well. It is
# one class all the same, wherever it is taken from.
for _name, _method in {
    "from_pretrained": classmethod(_from_pretrained), "save_pretrained": _save_pretrained, "push_to_hub": _push_to_hub,
}.items():  # fmt: skip
    setattr(ScanNetwork, _name, _method)
