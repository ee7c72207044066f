"""Names are data: no terminal, plot or page takes them for commands or markup."""

import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from rich.markup import escape
from rich.text import Text

from vmrnn_cli import cards, network
from vmrnn_cli.config import VMRNNConfig
from vmrnn_cli.errors import InputError
from vmrnn_cli.frames import read_arrays
from vmrnn_cli.text import for_markdown, for_plots, one_line, printable

NAME = "[bold]a$x_1^2$\x1b[31m\x07\u202e\udcff_b.npy"


def test_what_cannot_be_printed_is_spelt_out():
    assert printable(NAME) == r"[bold]a$x_1^2$\x1b[31m\x07\u202e\udcff_b.npy"
    assert printable("a\nb\tc\x9b") == r"a\nb\tc\x9b"
    assert printable("Bär — 東京 ∞.mp4") == "Bär — 東京 ∞.mp4"
    assert one_line(InputError("a\n  b\x1b", "c")) == r"a b\x1b — c"


@pytest.mark.parametrize("name", [NAME, "_hidden", "$\\frac", "a_b^c", "100%"])
def test_plots_show_names_as_they_are(name):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes.plot([0, 1], label=for_plots(name))
        (entry,) = axes.legend().get_texts()
        figure.canvas.draw()
    assert entry.get_text().strip().replace(r"\$", "$") == printable(name)
    assert axes.get_legend_handles_labels()[1]
    pyplot.close(figure)


def test_cards_show_names_as_they_are():
    assert for_markdown("a_b|<script>[x](y)*`\n") == r"a_b\|\<script\>\[x\](y)\*\`\\n"
    scores = {"mse": 1.0, "per_frame": {"mse": [1.0]}, "beaten_on": 1.0}
    summary = scores | {"clips": 3, "baseline_last_frame": scores, "baseline_motion": scores}
    card = cards.model_card(VMRNNConfig(), "<b>|x", "[a](b)", {}, summary)
    assert r"Trained on \<b\>\|x:" in card and r"clips of \[a\](b)." in card


def test_passwords_of_proxies_are_not_shown(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@host:1")
    assert network._shown("HTTPS_PROXY") == "http://...@host:1"


def test_rich_takes_names_for_text():
    assert Text.from_markup(escape(printable("[bold]x"))).plain == "[bold]x"


def test_libraries_are_silent_for_users(tmp_path):
    """As the command runs them; here a library warns while the command starts."""
    script = (
        "import warnings; from vmrnn_cli import __main__ as m; m.run = lambda _: warnings.warn('odd') or 0; m.main()"
    )
    for options, heard in (((), False), (("-W", "default"), True)):
        done = subprocess.run([sys.executable, *options, "-c", script], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout, "odd" in done.stderr) == (0, "", heard)


def test_headers_of_old_versions_are_read_in_silence(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 3L, 4L), }"
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    path = tmp_path / "old.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_arrays(path).arrays["frames"].shape == (2, 3, 4)
    np.testing.assert_array_equal(read_arrays(path).arrays["frames"], 0)
