import contextlib
import os
import subprocess
import sys
import threading

import pytest

from vmrnn_cli import outputs
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.outputs import atomic_folder, atomic_path, locked, remove_leftovers

ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="Windows has no locks of POSIX")


@pytest.fixture(autouse=True)
def _first_of_a_process(monkeypatch):
    monkeypatch.setattr(outputs, "_cleared", set())


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_temporary_file_is_beside_the_target_with_its_suffix(tmp_path):
    target = tmp_path / "clip.gif"
    with atomic_path(target, overwrite=False) as temporary:
        assert (temporary.parent, temporary.suffix) == (target.parent, ".gif")
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["clip.gif"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "clip.gif"
    target.write_text("old")
    with pytest.raises(failure), atomic_path(target, overwrite=True) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert names(tmp_path) == ["clip.gif"]


def test_an_existing_file_needs_overwrite(tmp_path):
    target = tmp_path / "clip.gif"
    target.write_text("old")
    with pytest.raises(InputError, match=r"clip\.gif already exists.*--overwrite"), atomic_path(target, False):
        pytest.fail("the block must not run")
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_missing_folder_and_a_folder_as_target_are_refused_first(tmp_path):
    with pytest.raises(InputError, match="no folder"), atomic_path(tmp_path / "no" / "clip.gif", False):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match="not a regular file"), atomic_path(tmp_path, True):
        pytest.fail("the block must not run")


def test_a_read_only_folder_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # the user root may write anywhere
    with pytest.raises(InputError, match="read-only"), atomic_path(tmp_path / "clip.gif", False):
        pytest.fail("the block must not run")


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real.gif").write_text("old")
    (tmp_path / "link.gif").symlink_to("real.gif")
    with atomic_path(tmp_path / "link.gif", overwrite=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.gif").is_symlink()
    assert (tmp_path / "real.gif").read_text() == "new"


@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_a_full_disk_is_a_failure_of_the_machine(tmp_path, atomic):
    with pytest.raises(VMRNNError, match="No space left on device") as caught, atomic(tmp_path / "out", False):
        raise OSError(28, "No space left on device")
    assert caught.value.exit_code == 1
    assert names(tmp_path) == []


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    target = tmp_path / ("a" * 251 + ".gif")
    with atomic_path(target, overwrite=False) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "weights"
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, overwrite=False) as temporary:
        (temporary / "config.json").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with atomic_folder(target, overwrite=False) as temporary:
        (temporary / "config.json").write_text("new")
    assert names(tmp_path) == ["weights"]
    assert (target / "config.json").read_text() == "new"


def test_overwriting_a_folder_keeps_the_files_of_others(tmp_path):
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"), atomic_folder(tmp_path, overwrite=False):
        pytest.fail("the block must not run")
    with atomic_folder(tmp_path, overwrite=True) as temporary:
        (temporary / "config.json").write_text("new")
    assert (tmp_path / "config.json").read_text() == "new"
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert not temporary.exists()


def test_a_file_is_no_target_for_a_folder(tmp_path):
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(InputError, match="is a file"), atomic_folder(tmp_path / "weights", overwrite=True):
        pytest.fail("the block must not run")


# ---- several processes


WRITE_AND_WAIT = """
import sys
from pathlib import Path
from vmrnn_cli import outputs
with getattr(outputs, sys.argv[1])(Path(sys.argv[2]), False) as temporary:
    (temporary / "part" if temporary.is_dir() else temporary).write_text("half")
    temporary.with_suffix(".mkv").write_text("what encoders leave beside it")
    print("started", flush=True)
    sys.stdin.read()
    temporary.with_suffix(".mkv").unlink()
"""


@pytest.fixture
def other_run():
    """A function that starts another process which writes a target until its stdin ends."""
    with contextlib.ExitStack() as stack:

        def start(atomic, target):
            command = [sys.executable, "-c", WRITE_AND_WAIT, atomic.__name__, str(target)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = stack.enter_context(subprocess.Popen(command, **pipes))
            assert process.stdout.readline() == b"started\n"
            return process

        yield start


@ON_WINDOWS
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_the_second_of_two_runs_with_one_output_is_refused(tmp_path, other_run, atomic, overwrite):
    process = other_run(atomic, tmp_path / "out.gif")
    with pytest.raises(InputError, match=r"another run is writing .*out\.gif"), atomic(tmp_path / "out.gif", overwrite):
        pytest.fail("the block must not run")
    with atomic_path(tmp_path / "other.gif", overwrite) as temporary:
        temporary.write_text("of the same folder")
    process.communicate(timeout=60)
    assert (process.returncode, names(tmp_path)) == (0, ["other.gif", "out.gif"])


@ON_WINDOWS
@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
@pytest.mark.parametrize("target", ["out.gif", "other.gif"])
def test_what_a_killed_run_leaves_goes_with_the_next(tmp_path, other_run, atomic, target):
    process = other_run(atomic, tmp_path / "out.gif")
    process.kill()
    process.wait(60)
    assert len(names(tmp_path)) == 3  # its lock, and two files
    (tmp_path / ".vmrnn-0123456789ab.gif").write_text("of a version without locks")
    with atomic_path(tmp_path / target, overwrite=False) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == [target]


@ON_WINDOWS
def test_files_that_may_be_written_at_once_are(tmp_path, other_run):
    with locked(tmp_path / "clip.npy"), atomic_path(tmp_path / "clip.npy", True, shared=True) as first:
        with atomic_path(tmp_path / "clip.npy", True, shared=True) as second:
            second.write_text("whole")
        remove_leftovers(tmp_path)
        first.write_text("whole, too")
    assert names(tmp_path) == ["clip.npy"]


@ON_WINDOWS
def test_two_threads_with_one_output(tmp_path):
    said = []

    def write():
        with pytest.raises(InputError, match="another run") as caught, atomic_path(tmp_path / "out.gif", True):
            pytest.fail("the block must not run")
        said.append(caught.value)

    with atomic_path(tmp_path / "out.gif", True) as temporary:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        temporary.write_text("new")
    assert len(said) == 1 and names(tmp_path) == ["out.gif"]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path):
    with (
        pytest.raises(InputError, match="already exists"),
        atomic_path(tmp_path / "out.gif", overwrite=False) as temporary,
    ):
        temporary.write_text("late")
        (tmp_path / "out.gif").write_text("of a run that knows no locks")
    assert (tmp_path / "out.gif").read_text() == "of a run that knows no locks"
    assert names(tmp_path) == ["out.gif"]


@ON_WINDOWS
def test_a_drive_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with atomic_path(tmp_path / "out.gif", overwrite=False) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["out.gif"]
