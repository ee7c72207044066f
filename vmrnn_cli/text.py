"""Names and paths are data: as they are shown, nothing in them commands a terminal, a plot or a page."""

import re


def printable(text: object) -> str:
    """Text for a line on a terminal: line breaks, colours and all else that cannot be printed are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def one_line(text: object) -> str:
    """Text for an error message: file names may hold line breaks."""
    return printable(" ".join(str(text).split()))


def for_plots(text: object) -> str:
    """Text that matplotlib takes neither for mathematics nor, where it begins with "_", for a label to leave out."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def for_markdown(text: object) -> str:
    """Text that Markdown takes for no markup, no table and no HTML."""
    return re.sub(r"([\\`*\[\]<>|$])", r"\\\1", printable(text))
