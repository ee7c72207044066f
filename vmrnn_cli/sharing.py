"""The networks as other programs meet them: they load, save and share themselves by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelHubMixin

from . import hub, model, motion_network, pretrained, weights
from .errors import InputError
from .outputs import atomic_folder

if TYPE_CHECKING:
    from typing_extensions import Self

_CARD = """---
{{ card_data }}
---

# VMRNN

Predicts the next frames of a video ([paper]({{ paper_url }})):

    vmrnn predict clip.mp4 --weights OWNER/NAME
"""


class _Shared(
    ModelHubMixin,
    library_name="vmrnn",
    tags=["video-prediction"],
    paper_url="https://arxiv.org/abs/2403.16536",
    model_card_template=_CARD,
):
    """What knows `from_pretrained`, `save_pretrained` and `push_to_hub`.

    All three deal in the folders of `vmrnn`: config.json, model.safetensors and a README.md.
    """

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **options: Any) -> Self:  # type: ignore[override]
        """Load weights by bundled name, folder or file, or from the Hub as `owner/name`.

        Args:
            name: as for `vmrnn_cli.weights.load`.
            revision: branch, tag or commit of a Hub repository.
            options: token, cache_dir, force_download, local_files_only, as everywhere in huggingface_hub.

        Returns:
            The network on the CPU, in float32 and in evaluation mode.

        Raises:
            InputError: there are no such weights, they are not those of such a network, or the Hub refuses.
            VMRNNError: the Hub or the network fails.
        """
        return pretrained.load_model(weights.locate(name, revision, **options), cls)  # type: ignore[arg-type, return-value]

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write a weights folder, in float32, over one that is there; a README.md that is there stays.

        Args:
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
            address = super().save_pretrained(folder, **options)
            if (target / hub.CARD_NAME).exists():
                (folder / hub.CARD_NAME).unlink()
        return address

    def _save_pretrained(self, save_directory: Path) -> None:
        pretrained.save_model(self, save_directory, half=False)  # type: ignore[arg-type]

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the network, in float32, to `owner/name`, which is made if need be. Returns the address of the commit.

        Args:
            repo_id: owner/name.
            options: those of `huggingface_hub.ModelHubMixin.push_to_hub`: private, branch, commit_message, ...

        Raises:
            InputError: the Hub refuses, or there is no token.
            VMRNNError: the Hub or the network fails.
        """
        with hub.pushing(repo_id, options.get("token")):
            return super().push_to_hub(repo_id, **options)


class VMRNN(model.VMRNN, _Shared):
    """The network of the paper, see `vmrnn_cli.model`."""


class MotionVMRNN(motion_network.MotionVMRNN, _Shared):
    """The network that carries the picture on, see `vmrnn_cli.motion_network`."""
