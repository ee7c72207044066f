"""A cause is told where the error or the environment tells it, whatever its class; else the library's own words."""

import socket

import pytest

from vmrnn_cli import network
from vmrnn_cli.errors import VMRNNError, explained, os_failure


def raised(outer, inner=None):
    """An error as it is caught: with those that it came from."""
    try:
        try:
            if inner is not None:
                raise inner
        finally:
            raise outer
    except Exception as error:
        return error


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (*network._PROXIES, *network._CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "error", "told"),
    [
        ("ALL_PROXY", "socks5://h:9", ImportError("Using SOCKS proxy, but 'socksio' is not installed"), "ALL_PROXY"),
        ("https_proxy", "garbage://x", ValueError("Unknown scheme for proxy URL URL('garbage://x')"), "https_proxy"),
        ("HTTPS_PROXY", "http://me:secret@p:1", OSError("Tunnel connection failed: 407"), "which is http://...@p:1"),
        ("HTTPS_PROXY", "http://p:1", OSError("[Errno 111] Connection refused"), "the network and HTTPS_PROXY"),
        ("SSL_CERT_FILE", "/no/ca.pem", FileNotFoundError(2, "No such file"), "/no/ca.pem — correct SSL_CERT_FILE"),
        ("REQUESTS_CA_BUNDLE", "/no/ca.pem", OSError("no suitable TLS CA certificate"), "REQUESTS_CA_BUNDLE"),
        ("X", "", OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), "is not trusted"),
        ("X", "", raised(OSError("no connection"), socket.gaierror(-2, "Name unknown")), "name cannot be resolved"),
    ],
)  # fmt: skip
def test_known_causes(monkeypatch, variable, value, error, told):
    monkeypatch.setenv(variable, value)
    known = network.known_cause("the download of x failed", error)
    assert str(known).startswith("the download of x failed: ")
    assert told in str(known)
    assert "secret" not in str(known)


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), ValueError("odd"), FileNotFoundError(2, "No such file")]
)
def test_unknown_causes(error):
    assert network.known_cause("the download of x failed", error) is None
    assert network.reason(raised(ValueError("outer"), error)) == str(error)


def test_the_operating_system_is_advised_on_by_its_number():
    full = os_failure("cannot write x", OSError(28, "No space left on device"), "set HF_HOME to another place")
    assert str(full) == "cannot write x: No space left on device — free some space, or set HF_HOME to another place"
    assert str(os_failure("cannot write x", OSError(5, "Input/output error"))).endswith(
        "use another place: the drive fails"
    )
    assert str(os_failure("cannot write x", OSError("odd"))) == "cannot write x: odd"
    nowhere = FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/']")
    assert str(explained(nowhere)).endswith("no folder for temporary files can be written — set TMPDIR to one that can")
    assert str(explained(ImportError("libx.so: cannot open"))) == "cannot import a package: libx.so: cannot open"
    assert explained(KeyError("x")) is None
    assert str(VMRNNError("it failed")) == "it failed"
