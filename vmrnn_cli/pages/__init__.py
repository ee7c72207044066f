"""Pages: one HTML file each, which opens anywhere without a network and shows what a forecast or a run is worth.

A page holds all that it needs. Its Content-Security-Policy lets it load nothing, and run and style by nothing but what
the templates of this package say, known by hash; whatever else goes in, names of files above all, is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..cards import code_version

_TEMPLATES = Path(__file__).parent / "templates"


def fill(template: str, content: Mapping[str, Any], *, script: str = "page.js", asks: bool = False) -> str:
    """The text of a page.

    Args:
        template: a file in `templates/`.
        content: what the template asks for; text is escaped, `markupsafe.Markup` is taken as it is.
        script: a file in `templates/`, what the page runs.
        asks: whether it may ask for more, of nobody but who served it.

    Raises:
        jinja2.UndefinedError: something that it asks for is missing.
    """
    style, script = _read("page.css"), _read(script)
    asked = "'self'" if asks else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hashed(style)}'; script-src '{_hashed(script)}'; "
        f"base-uri 'none'; form-action 'none'; connect-src {asked}"
    )
    page = {"policy": policy, "style": style, "script": script, "version": code_version()}
    return _environment().get_template(template).render(**page, **content)


def write(path: Path, template: str, content: Mapping[str, Any]) -> None:
    """Write a page; arguments as for `fill`. A name that is no Unicode is written with backslashes."""
    path.write_text(fill(template, content), "utf-8", "backslashreplace")


def number(value: float | None, none: str = "–", digits: int | None = None) -> str:
    """A number for people, with so many decimal places, or four digits in all."""
    if value is None or digits is not None:
        return none if value is None else f"{value:.{digits}f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = number
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": False}  # browsers read no NaN
    return environment


@cache
def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8")


def _hashed(text: str) -> str:
    """What a Content-Security-Policy calls a text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
