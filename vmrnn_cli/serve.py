"""A page of a stream that is being watched: the picture, the forecast, where it surprises, and the curve.

Whoever looks gets the newest frame there is when they ask, and is not waited for. Nothing that they send changes
anything: there are two things to ask for, the page and what is newest.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import pages
from .errors import InputError, os_failure
from .event_films import Paint, Panels, paint_gray, panels
from .surprise import Event
from .watching import Watched

_CURVE, _EVENTS = 400, 20  # frames and events that are shown
_VIEWERS = 16  # requests at a time
_PATIENCE = 10.0  # seconds for a request to be sent, and for its answer to be taken
_WAIT = 2.0  # seconds that a request waits for what is new


def parse_address(given: str, open_to_network: bool) -> tuple[str, int, bool]:
    """Host, port and whether other machines may ask, of "HOST:PORT".

    Raises:
        InputError: it is none, or other machines could reach it although `open_to_network` is not set.
    """
    host, _, port = given.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"--serve {given} is no address", "write it as in 127.0.0.1:8080")
    if not _is_local(host) and not open_to_network:
        raise InputError(
            f"--serve {given} can be reached from other machines", "use 127.0.0.1, or pass --open-to-network"
        )
    return host, int(port), open_to_network


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server:
    """Serves the page from threads of its own, within a `with` block.

    address : of the page

    Args:
        host: a name or an address of this machine.
        port: 0 takes any that is free.
        open_to_network: whether requests may name another host than this machine by itself.
        title: what the page is called.

    Raises:
        VMRNNError: the address cannot be used.
    """

    def __init__(self, host: str, port: int, open_to_network: bool = False, title: str = "vmrnn watch") -> None:
        self._latest: dict[str, Any] | None = None
        self._shown: Panels | None = None
        self._curve: deque[float] = deque(maxlen=_CURVE)
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._starts: dict[int, float] = {}
        self._dropped = 0
        self.paint: Paint = paint_gray  # what colours forecasts
        self.news = threading.Condition()
        self._encoded: tuple[int, bool, bytes] | None = None
        self.page = pages.fill("watch.html", {"title": title}, script="watch.js", asks=True).encode()
        self.any_host = open_to_network
        self.viewers = threading.BoundedSemaphore(_VIEWERS)
        try:
            kind = _Server6 if ":" in host else _Server
            self._server = kind((host, port), _Handler)
        except OSError as error:
            raise os_failure(f"cannot serve at {host}:{port}", error, "name another --serve") from error
        self._server.owner = self
        self.port = self._server.server_address[1]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def show(self, step: Watched, picture: NDArray[np.uint8], lasting: bool, dropped: int) -> None:
        """Take the newest frame; nothing is encoded before somebody asks for it."""
        self._curve.append(min(99.0, step.surprise or 0.0))
        if step.began is not None:
            self._events.append(step.began)
            self._starts = {event.number: self._starts.get(event.number, step.time) for event in self._events}
        events = [
            {
                "number": event.number, "start": self._starts[event.number], "surprise": event.surprise,
                "end": None if event.end is None else event.time,
            }
            for event in reversed(self._events)
        ]  # fmt: skip
        latest = {
            "frame": step.number, "time": step.time, "surprise": step.surprise, "alarm": step.alarm,
            "lasting": lasting, "dropped": dropped, "curve": list(self._curve), "events": events, "ended": False,
        }  # fmt: skip
        with self.news:
            self._latest, self._shown = latest, panels(step, picture, lasting, self.paint)
            self.news.notify_all()

    def end(self) -> None:
        """Say that there will be no more."""
        with self.news:
            if self._latest is not None:
                self._latest = {**self._latest, "ended": True, "lasting": False}
            self.news.notify_all()

    def newest(self, after: int) -> bytes | None:
        """What is newer than a frame, as JSON, when there is some; None if none comes for a while."""

        def there() -> bool:
            return self._latest is not None and (self._latest["frame"] > after or self._latest["ended"])

        with self.news:
            if not self.news.wait_for(there, _WAIT):
                return None
            latest, shown, encoded = self._latest, self._shown, self._encoded
        assert latest is not None and shown is not None
        key = latest["frame"], latest["ended"]
        if encoded is None or encoded[:2] != key:  # two may do the same at once: neither waits for the other
            pictures = {"picture": shown.picture, "forecast": shown.forecast, "heat": shown.heat}
            told = {name: None if picture is None else _encode(picture) for name, picture in pictures.items()}
            encoded = self._encoded = (*key, json.dumps({**latest, **told}, allow_nan=False).encode())
        return encoded[2]

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._server.shutdown()
        self._server.server_close()


def _encode(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False
    owner: Server

    def handle_error(self, *_: object) -> None:
        """A viewer who goes away is no failure."""


class _Server6(_Server):
    import socket

    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    server: _Server
    server_version, sys_version = "vmrnn", ""

    def do_GET(self) -> None:
        owner = self.server.owner
        if not owner.any_host and not self._names_this_machine():
            self._answer(403, b"this page is for the machine itself")
            return
        if not owner.viewers.acquire(blocking=False):
            self._answer(503, b"too many look at once")
            return
        try:
            self._look_up(owner)
        finally:
            owner.viewers.release()

    def _look_up(self, owner: Server) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/":
            self._answer(200, owner.page, "text/html; charset=utf-8")
        elif asked.path == "/latest":
            try:
                after = int(parse_qs(asked.query).get("after", ["-1"])[0])
            except ValueError:
                self._answer(400, b"after must be a number")
                return
            newest = owner.newest(after)
            self._answer(204 if newest is None else 200, newest or b"", "application/json")
        else:
            self._answer(404, b"there is no such thing")

    def _refuse(self) -> None:
        self._answer(405, b"there is nothing to change here")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = _refuse  # noqa: N815

    def _names_this_machine(self) -> bool:
        """Whether the request is meant for this machine: a page from elsewhere names its own host."""
        host = self.headers.get("Host", "")
        return _is_local(urlsplit(f"//{host}").hostname or "")

    def _answer(self, code: int, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(content))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is logged: standard error is for the stream."""
