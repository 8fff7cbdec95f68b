"""What the project writes is whole or absent, and as readable as the user wants it."""

import json
import os
import threading

import pytest

from signver.files import write_whole
from training.errors import UserError
from training.files import atomic_file, atomic_folder, read_json, write_json


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_result_is_as_readable_as_the_users_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("x")
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "in").write_text("x")
        write_whole(tmp_path / "whole", b"x")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder", "whole")]
    assert modes == [0o666 & ~umask, 0o777 & ~umask, 0o666 & ~umask]


def test_threads_write_at_once_and_leave_the_umask_alone(tmp_path):
    before = os.umask(0o027)
    try:
        threads = [
            threading.Thread(target=lambda n=n: [write_whole(tmp_path / f"{n}", b"x" * n) for _ in range(50)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        after = os.umask(before)
    assert after == 0o027
    assert {path.name for path in tmp_path.iterdir()} == {str(n) for n in range(8)}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    def fail():
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(UserError, match="cannot write"), atomic_file(tmp_path / "file" / "in"):
        pass


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1.5, float("nan")], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {
        "a": [1.5, None],
        "b": {"c": None},
    }
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(UserError, match="expected a JSON object"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not JSON"):
        read_json(tmp_path / "c.json")
