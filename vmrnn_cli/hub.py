"""The Hugging Face Hub: weights folders down and up through huggingface_hub, and its refusals in one line each.

A repository holds what a weights folder holds, under the names that are usual on the Hub: config.json,
model.safetensors and, if there is one, a README.md. Nothing here imports PyTorch.
huggingface_hub honours HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME, resumes what breaks off, shows progress on a
terminal, and keeps files in its cache, which processes share.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, hf_hub_download, hf_hub_url, try_to_load_from_cache, utils
from huggingface_hub import errors as theirs
from huggingface_hub.constants import REPOCARD_NAME as CARD_NAME
from huggingface_hub.errors import HTTPError  # of the library below: httpx, or what came after it
from huggingface_hub.utils.sha import sha_fileobj

from . import network
from .errors import InputError, VMRNNError, os_failure
from .networks import CONFIG_NAME, WEIGHTS_NAME

_log = logging.getLogger(__name__)
_BUSY = (408, 429, 500, 502, 503, 504)  # the Hub may answer later
_TRIES = 5
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def download(
    repository: str,
    revision: str | None = None,
    *,
    sha256: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder in the cache that holds a repository's config.json, model.safetensors and card.

    The Hub is asked whether there is something newer than the cache, unless `revision` is a full commit hash. When it
    cannot be reached or is too busy, the cached copy is taken and a warning logged. Damaged weights leave the cache.

    Args:
        repository: owner/name.
        revision: branch, tag or commit; default "main".
        sha256: what the weights must hash to; by default what the Hub says, where it does.
        token: default that of HF_TOKEN or of `hf auth login`; False sends none.
        cache_dir: default that of HF_HOME.
        force_download: download anew what is in the cache.
        local_files_only: ask the cache only.

    Raises:
        InputError: there is no such repository or revision, no access to it, no copy of it without the Hub, or it
            holds no VMRNN.
        VMRNNError: network, Hub or disk fail, or the weights are not those that hash to `sha256`.
    """
    name = f"{repository}@{revision}" if revision else repository
    copy = cached(repository, revision, cache_dir)
    with _in_one_line(name):
        if local_files_only or constants.HF_HUB_OFFLINE:
            if copy is None:
                raise theirs.OfflineModeIsEnabled
            return _verified(copy, sha256, name)
        asking = partial(_ask, repository, revision, token)
        if copy is None or force_download:
            commit = asking(tries=_TRIES)
        elif copy.name == revision:  # a commit, which never changes
            return _verified(copy, sha256, name)
        else:
            try:
                commit = asking(tries=1)
            except (HTTPError, OSError) as error:
                if not _is_outage(error):
                    raise
                _log.warning("%s — using the copy in the cache", _outage(error, name))
                return _verified(copy, sha256, name)
        get = partial(hf_hub_download, repository, token=token, cache_dir=cache_dir, force_download=force_download)
        folder = Path(get(WEIGHTS_NAME, revision=commit)).parent
        with suppress(theirs.EntryNotFoundError):
            get(CARD_NAME, revision=folder.name)
        get(CONFIG_NAME, revision=folder.name)
        _verified(folder, sha256, name)
        if revision != commit:  # the cache notes last that the branch is there now: it is whole, whenever we stop
            hf_hub_download(repository, CONFIG_NAME, revision=revision, token=token, cache_dir=cache_dir)
        return folder


def cached(repository: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Path | None:
    """The folder in the cache with the weights of a repository, None unless all of them are there."""
    with _in_one_line(repository):
        files = [
            try_to_load_from_cache(repository, file, cache_dir=cache_dir, revision=revision)
            for file in (CONFIG_NAME, WEIGHTS_NAME)
        ]
    return Path(str(files[0])).parent if all(isinstance(file, str) for file in files) else None


def push(folder: Path, repository: str, *, private: bool | None = None, revision: str | None = None) -> str:
    """Upload a weights folder, its card and pictures, making the repository and the branch where there are none.

    Returns its address.

    Raises:
        InputError: there is no token, or the Hub refuses.
        VMRNNError: network or Hub fail.
    """
    if "@" in repository:
        raise InputError(f"'{repository}' is no repository to push to", "give the branch with --revision")
    with pushing(repository):
        api = HfApi()
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id  # with the owner, if left out
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, "*.png"],
            commit_message="Upload weights of a VMRNN",
        )
    return f"{api.endpoint}/{repository}" + (f"/tree/{revision}" if revision else "")


@contextmanager
def pushing(repository: str, token: str | bool | None = None) -> Iterator[None]:
    """Say in one line why the block, which pushes to a repository, fails; at once where it must."""
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"'{repository}' cannot be pushed to in offline mode", "unset HF_HUB_OFFLINE")
    if not token and get_token() is None:
        raise InputError(f"pushing to '{repository}' takes a token of the Hub", f"{_LOG_IN} to one that may write")
    shown = sys.stderr.isatty() or utils.are_progress_bars_disabled()  # uploads would show theirs in a log file too
    if not shown:
        utils.disable_progress_bars()
    try:
        with _in_one_line(repository):
            yield
    finally:
        if not shown:
            utils.enable_progress_bars()


# ----------------------------------------------------------------------------------------------------------------------


def _ask(repository: str, revision: str | None, token: str | bool | None, tries: int) -> str | None:
    """The commit that a revision is at, as far as the Hub says; raises what it has against giving it out.

    huggingface_hub itself would look into the cache and keep that to itself.
    """
    answer = utils.http_backoff(
        "HEAD",
        hf_hub_url(repository, CONFIG_NAME, revision=revision),
        headers=utils.build_hf_headers(token=token),
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        max_retries=tries - 1,
        retry_on_exceptions=(),
        retry_on_status_codes=_BUSY,
    )
    utils.hf_raise_for_status(answer)
    return answer.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT, revision)


def _verified(folder: Path, sha256: str | None, name: str) -> Path:
    """The folder, unless its weights do not hash to what they should: then they leave the cache."""
    weights = folder / WEIGHTS_NAME
    expected = sha256 or _sha256_by_the_hub(weights)
    if expected is None:
        return folder
    with weights.open("rb") as file:
        if sha_fileobj(file).hex() == expected:
            return folder
    blob = weights.resolve()
    weights.unlink()
    blob.unlink(missing_ok=True)
    raise VMRNNError(
        f"the weights of '{name}' are damaged, or not those that were published: their sha256 is not {expected}",
        "they were removed from the cache: try again",
    )


def _sha256_by_the_hub(weights: Path) -> str | None:
    """The hash that the Hub gave: the cache names the blobs of large files by it, those of small ones by SHA-1."""
    blob = weights.readlink() if weights.is_symlink() else weights
    return blob.name if blob.parent.name == "blobs" and len(blob.name) == 64 else None


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line: the Hub's reason, and what to do."""
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError, ImportError) as error:  # RuntimeError: of uploads and hf_xet
        raise _explained(error, name) from error


def _explained(error: BaseException, name: str) -> VMRNNError:
    """What to tell about a failure. The order matters: the classes of errors overlap."""
    if isinstance(error, (theirs.LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        return _explained(error.__cause__, name)
    if isinstance(error, theirs.LocalTokenNotFoundError):
        return InputError(f"'{name}' is asked for with a token, and there is none", _LOG_IN)
    if isinstance(error, UnicodeEncodeError):
        return InputError("HF_TOKEN holds what no token of the Hub does", _LOG_IN)
    if isinstance(error, (theirs.OfflineModeIsEnabled, theirs.LocalEntryNotFoundError)):
        return InputError(
            f"weights '{name}' are neither here nor in the cache, and the Hub is not asked in offline mode",
            "unset HF_HUB_OFFLINE, or check the name",
        )
    if _status(error) is None and (cause := network.known_cause(f"the Hub cannot be reached for '{name}'", error)):
        return cause
    if _is_outage(error):
        where = f" and HF_ENDPOINT, which is {constants.ENDPOINT}" if os.environ.get("HF_ENDPOINT") else ""
        return VMRNNError(_outage(error, name), f"check the network{where}, or try again later")
    refused = f"the Hub refuses '{name}': {_reason(error)}"
    status = _status(error)
    if isinstance(error, theirs.GatedRepoError) or status == 403:
        return InputError(refused, f"ask for access on the page of the repository, and {_LOG_IN}")
    if isinstance(error, theirs.RevisionNotFoundError):
        return InputError(refused, "check the revision: a branch, a tag or a commit")
    if isinstance(error, theirs.RepositoryNotFoundError) or (
        status in (401, 404) and not isinstance(error, theirs.EntryNotFoundError)
    ):
        return InputError(refused, f"check the name; if the repository is private, {_LOG_IN}")
    if isinstance(error, theirs.EntryNotFoundError):
        return InputError(f"'{name}' is not the repository of a VMRNN: {_reason(error)}", "check the name")
    if status is not None:
        return (InputError if status < 500 else VMRNNError)(refused)
    if isinstance(error, theirs.HFValidationError):
        return InputError(f"'{name}' does not do for the Hub: {_reason(error)}", "write it as owner/name[@revision]")
    if isinstance(error, OSError) and error.errno:
        where = error.filename or constants.HF_HUB_CACHE
        failure = os_failure(f"cannot read or write {where} (HF_HOME)", error, "set HF_HOME to another place")
        return VMRNNError(failure.what, failure.todo)
    return VMRNNError(f"the transfer of '{name}' broke off: {_reason(error)}")


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error tells of, None where there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_outage(error: BaseException) -> bool:
    """Whether the Hub did not answer, or said that it cannot now."""
    status = _status(error)
    return status in _BUSY if status is not None else isinstance(error, HTTPError)


def _outage(error: BaseException, name: str) -> str:
    return f"the Hub cannot {'serve' if _status(error) else 'be reached for'} '{name}' now: {_reason(error)}"


def _reason(error: BaseException) -> str:
    """What the server said, else what the error says, on one line."""
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    status = _status(error)
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    text = " ".join(lines[:2])[:300].rstrip(". ")  # further lines are advice for programmers
    return text if status is None or str(status) in text else f"{text} ({status})"
