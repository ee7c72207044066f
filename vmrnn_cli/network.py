"""Why the network failed, where that is known: the proxy, the certificates or the name of the server.

The class of an error does not tell: libraries make an OSError, a ValueError or an ImportError of the same cause.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import VMRNNError
from .text import one_line

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def known_cause(what: str, error: BaseException) -> VMRNNError | None:
    """The error to show where the cause is known; None where only the library can say it.

    what : what failed, as in "the download of X failed"
    """
    errors = list(_chain(error))
    said = " ".join(f"{type(each).__name__}: {each}" for each in errors)
    absent = [name for name in _CERTIFICATES if os.environ.get(name) and not Path(os.environ[name]).exists()]
    if absent and re.search(r"(?i)certificate|No such file", said):
        return VMRNNError(f"{what}: there are no certificates at {os.environ[absent[0]]}", f"correct {absent[0]}")
    proxy = next((name for known in _PROXIES for name in (known, known.lower()) if os.environ.get(name)), None)
    if proxy and re.search(r"(?i)proxy|socks|tunnel", said):
        return VMRNNError(
            f"{what}: the proxy cannot be used: {reason(error)}", f"check {proxy}, which is {_shown(proxy)}"
        )
    if re.search(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", said):
        return VMRNNError(
            f"{what}: the server's certificate is not trusted: {reason(error)}",
            "if a proxy in between has its own, name its certificates with SSL_CERT_FILE and REQUESTS_CA_BUNDLE",
        )
    if any(isinstance(each, socket.gaierror) for each in errors) or re.search(r"NameResolutionError|getaddrinfo", said):
        return VMRNNError(f"{what}: the server's name cannot be resolved", "check the network")
    if proxy and re.search(r"(?i)connect", said):
        return VMRNNError(f"{what}: {reason(error)}", f"check the network and {proxy}, which is {_shown(proxy)}")
    return None


def reason(error: BaseException) -> str:
    """What the error at the root of others says, in one line."""
    *_, root = _chain(error)
    return one_line(root) or type(root).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, the root last."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        held = (each for each in (getattr(inner, "reason", None), *inner.args) if isinstance(each, BaseException))
        inner = inner.__cause__ or inner.__context__ or next(held, None)


def _shown(variable: str) -> str:
    """The address in a variable, without the password that it may hold."""
    return re.sub(r"//[^/@]*@", "//...@", os.environ[variable])
