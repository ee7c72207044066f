"""The page of a stream, over HTTP and in a browser."""

from __future__ import annotations

import http.client
import json
import socket
import time

import numpy as np
import pytest

from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.serve import Server, parse_address
from vmrnn_cli.surprise import Event
from vmrnn_cli.watching import Watched

PICTURE = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)


def step(number, surprise=1.0, began=None):
    return Watched(
        number, number / 25, np.zeros((1, 64, 96), np.float32), surprise, 4.9, began=began,
        forecast=np.full((1, 64, 96), 0.4, np.float32), heat=np.eye(16, 24, dtype=np.float32) * 9,
    )  # fmt: skip


@pytest.fixture
def server():
    with Server("127.0.0.1", 0, title="cam <1>") as opened:
        yield opened


def ask(server, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def test_it_answers_with_what_is_newest(server):
    server.show(step(3), PICTURE, False, 0)
    server.show(step(4, 6.0, Event(1, 4, 4, 6.0, 0.16)), PICTURE, True, 2)
    status, headers, content = ask(server, "/latest?after=3")
    told = json.loads(content)
    assert (status, headers["Cache-Control"], headers["X-Frame-Options"]) == (200, "no-store", "DENY")
    assert (told["frame"], told["lasting"], told["dropped"], told["curve"]) == (4, True, 2, [1.0, 6.0])
    assert told["events"] == [{"number": 1, "start": 0.16, "surprise": 6.0, "end": None}]
    assert all(told[name].startswith("data:image/jpeg;base64,") for name in ("picture", "forecast", "heat"))
    assert ask(server, "/latest?after=4")[0] == 204


def test_nothing_can_be_changed_and_nothing_else_is_there(server):
    assert [ask(server, "/", method)[0] for method in ("POST", "PUT", "DELETE", "OPTIONS")] == [405] * 4
    assert [ask(server, path)[0] for path in ("/../etc/passwd", "/latest?after=x", "/favicon.ico")] == [404, 400, 404]


def test_a_page_from_elsewhere_learns_nothing(server):
    assert ask(server, "/latest", host="evil.example")[0] == 403
    assert ask(server, "/", host=f"localhost:{server.port}")[0] == 200


def test_a_slow_viewer_holds_up_nobody(server):
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"GET /latest?after=-1 HTTP/1.1\r\nHost: 127.0.0.1\r\n")  # and not to its end
        begin = time.monotonic()
        for number in range(200):
            server.show(step(number), PICTURE, False, 0)
        assert ask(server, "/latest?after=0")[0] == 200
        assert time.monotonic() - begin < 8


def test_addresses_are_local_unless_told_otherwise():
    assert parse_address("127.0.0.1:80", False) == ("127.0.0.1", 80, False)
    assert parse_address("[::1]:8080", False)[:2] == ("::1", 8080)
    assert parse_address("0.0.0.0:1", True) == ("0.0.0.0", 1, True)
    for wrong in ("0.0.0.0:80", "example.org:80", ":80", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"):
        with pytest.raises(InputError):
            parse_address(wrong, False)


def test_a_port_that_is_taken_is_told(server):
    with pytest.raises(VMRNNError, match="cannot serve"):
        Server("127.0.0.1", server.port)


def test_the_page_in_a_browser(server, browser, tmp_path):
    server.show(step(1), PICTURE, False, 0)
    browser.messages.clear()
    browser.requests.clear()
    browser("Page.navigate", url=server.address)
    browser.until(
        "document.readyState === 'complete' && document.querySelector('#state')?.textContent.includes('frame 2')"
    )
    assert browser.value("document.querySelector('h1').textContent") == "cam <1>"
    for number in range(2, 60):
        event = Event(1, 50, 50, 7.5, 2.0) if number == 50 else None
        server.show(step(number, 7.5 if number >= 50 else 1 + 0.3 * (number % 5), event), PICTURE, number >= 50, 0)
    browser.until("document.querySelector('#state').textContent.includes('An event lasts: frame 60')")
    assert browser.value("[...document.images].map(image => image.naturalWidth)") == [96, 96, 24]
    assert browser.value("document.querySelector('#line').getAttribute('points').split(' ').length") == 59
    assert browser.value("document.querySelector('#events').textContent") == "from 2.0 s and lasts, surprise 7.5"
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert not [address for address in browser.requests if not address.startswith(server.address)]
    server.end()
    browser.until("document.querySelector('#state').textContent.startsWith('The stream has ended')")
    assert browser.messages == []
