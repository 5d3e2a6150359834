"""Files are there whole, as they were written, and where their user wanted them."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from zoorecall import files
from zoorecall.errors import DamagedError, ResultsError
from zoorecall.files import BLANK, first_free, locked, read_sealed, replacing, seal, set_aside


def write(path, text="new") -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    target, link, chain = tmp_path / "kept" / "page.html", tmp_path / "page", tmp_path / "chain"
    link.symlink_to("kept/page.html")
    chain.symlink_to("page")
    for path in (link, chain):  # the first makes the target
        write(path, path.name)
        assert link.is_symlink() and chain.is_symlink() and target.read_text() == path.name
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert read == ["new"] and pipe.is_fifo()


def test_a_device_is_written_to_and_stays(tmp_path):
    """/dev/null and /dev/full as links: if they were replaced, it would be here."""
    for name in ("null", "full"):
        (tmp_path / name).symlink_to(f"/dev/{name}")
    write(tmp_path / "null")
    with pytest.raises(ResultsError, match="full: cannot be written: No space left on device"):
        write(tmp_path / "full")
    for name in ("null", "full"):
        assert (tmp_path / name).is_char_device() and (tmp_path / name).is_symlink()
        assert not os.path.islink(f"/dev/{name}") and os.path.exists(f"/dev/{name}")


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_stdout_goes_where_it_is_directed_between_what_else_is_printed(mode, tmp_path):
    out = tmp_path / "out"
    out.write_text("earlier\n")
    number = out.stat().st_ino
    code = (
        "from pathlib import Path; from zoorecall.files import replacing; print('before')\n"
        "with replacing(Path('/dev/stdout')) as temporary: temporary.write_text('written\\n')\n"
        "print('after')"
    )
    with out.open(mode) as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    earlier = "earlier\n" if mode == "ab" else ""
    assert out.read_text() == earlier + "before\nwritten\nafter\n"
    assert out.stat().st_ino == number


@pytest.mark.parametrize("kind", ["folder", "loop", "below a file"])
def test_where_nothing_can_be_written_costs_one_line(kind, tmp_path):
    path = tmp_path / "out"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        (tmp_path / "file").write_text("mine")
        path = tmp_path / "file" / "out"
    with pytest.raises(ResultsError, match=f"{path}: (cannot be written: |is a folder)") as raised:
        write(path)
    assert "\n" not in str(raised.value)


def test_the_lock_leaves_the_file_it_finds(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to("mine")
    with locked(tmp_path):
        assert (tmp_path / "mine").read_text() == "mine"


def test_no_sweep_comes_between_while_a_part_changes_its_lock(tmp_path, monkeypatch):
    """Which the system may do by letting go of the one before it takes the other."""
    lock, refused = files._lock, []

    def come_between():
        with pytest.raises(ResultsError, match="another sweep"), locked(tmp_path):
            pass
        refused.append(True)

    def in_two_steps(file, kind, busy):
        if kind == fcntl.LOCK_SH:
            fcntl.flock(file, fcntl.LOCK_UN)
            other.start()
            other.join(0.2)
        lock(file, kind, busy)

    other = threading.Thread(target=come_between)
    with locked(tmp_path, (1, 2)) as setting_up:
        with setting_up() as alone:
            monkeypatch.setattr(files, "_lock", in_two_steps)
        monkeypatch.setattr(files, "_lock", lock)
        other.join(10)
    assert alone and refused


def test_a_seal_covers_every_byte_and_itself(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before " + BLANK + b" after")
    seal(path)
    content = path.read_bytes()
    assert read_sealed(path) == content and BLANK not in content
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DamagedError):
            read_sealed(path)
    for changed in (content[:-1], content + b" ", content[1:], b"", content[:40]):
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            read_sealed(path)
    path.write_bytes(b"of an earlier version")
    assert read_sealed(path, needed=False) == b"of an earlier version"


def test_what_is_set_aside_replaces_nothing(tmp_path):
    names = []
    for text in "abc":
        (tmp_path / "x").write_text(text)
        names.append(set_aside(tmp_path / "x").name)
    assert names == ["x.damaged", "x.damaged.1", "x.damaged.2"]
    assert [(tmp_path / name).read_text() for name in names] == [*"abc"]
    assert first_free(tmp_path / "x.damaged").name == "x.damaged.3"
