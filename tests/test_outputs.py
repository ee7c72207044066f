import pytest

from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.outputs import atomic_folder, atomic_path


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
