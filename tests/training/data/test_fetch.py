"""Data sets by name: a local server that speaks Kaggle's protocol; archives of each layout, also hostile."""

import base64
import hashlib
import http.server
import io
import json
import os
import stat
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from training.data import fetch
from training.data.__main__ import main, parse_arguments
from training.errors import UserError


def picture(seed, size=(160, 80), mode="L"):
    pixels = np.full(size[::-1], 255, np.uint8)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        top, left = int(rng.integers(5, size[1] - 12)), int(rng.integers(5, size[0] - 60))
        pixels[top : top + 3, left : left + 50] = 30
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def cedar_files(signers=(1, 2, 5, 7), each=3):
    files = {"signatures/Readme.txt": b"CEDAR"}
    for signer in signers:
        for number in range(1, each + 1):
            mode = "RGBA" if signer == 7 else "P" if signer == 5 else "L"
            files[f"signatures/full_org/original_{signer}_{number}.png"] = picture(
                signer * 100 + number, mode=mode
            )
            files[f"signatures/full_forg/forgeries_{signer}_{number}.png"] = picture(signer * 900 + number)
    return files


def siamese_files():
    files = {"sign_data/train_data.csv": b"068/a.png,068_forg/b.png,1\n", "sign_data/test_data.csv": b""}
    for writer in ("001", "002", "003", "004", "068"):
        for number in range(3):
            image = picture(int(writer) * 50 + number)
            files[f"sign_data/train/{writer}/{writer}_{number}.png"] = image
            files[f"sign_data/train/{writer}_forg/{number}_{writer}.png"] = picture(int(writer) * 70 + number)
            if writer == "068":
                files[f"sign_data/test/{writer}/{writer}_{number}.png"] = image
    return files


def signverod_files():
    """Two documents of two pages: tables as published, with the corrected columns absent and no collision."""
    files = {"categories.csv": b"id,name\n1,signature\n2,initials\n3,redaction\n4,date\n"}
    ids, train, test = (
        ["id,file_name,width,height"],
        ["image_id,category_id,bbox"],
        ["image_id,category_id,bbox"],
    )
    for number in range(6):
        name = f"{'abcdef'[number]}lease.png"
        files[f"images/{name}"] = picture(number, (400, 500))
        ids.append(f"{number + 1},{name},400,500")
        (train if number < 4 else test).append(f'{number + 1},{1 + number % 4},"[0.1, 0.2, 0.3, 0.1]"')
    for name, lines in (("image_ids.csv", ids), ("train.csv", train), ("test.csv", test)):
        files[name] = "\n".join(lines).encode() + b"\n"
    return files


def archive_of(files, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def run(*options):
    import sys

    before, sys.argv = sys.argv, ["data", "fetch", *map(str, options)]
    try:
        return main()
    finally:
        sys.argv = before


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("KAGGLE")] + ["SIGNVER_DATA"]:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)


# Layouts.


def test_cedar_becomes_the_set_that_the_configs_read(tmp_path, capsys):
    archive = archive_of(cedar_files(), tmp_path / "cedar.zip")
    assert run("cedar", "--from", archive, "--output", tmp_path / "data") == 0
    card = json.loads((tmp_path / "data/signatures/dataset_card.json").read_text())
    assert card["splits"]["eval"]["documents"] == 2  # 2 and 5 of SignVer's held-out signers are here
    assert card["splits"]["train"]["boxes"] == {"forged": 6, "genuine": 6}
    assert "0 errors" in capsys.readouterr().out


def test_the_siamese_set_is_split_by_writer_and_says_so(tmp_path, capsys):
    archive = archive_of(siamese_files(), tmp_path / "archive.zip")
    assert run("siamese", "--from", archive, "--output", tmp_path / "data") == 0
    card = json.loads((tmp_path / "data/signatures/dataset_card.json").read_text())
    assert sum(split["documents"] for split in card["splits"].values()) == 5
    assert sum(split["pages"] for split in card["splits"].values()) == 30  # test/ repeats train/
    assert "splits are made by writer" in capsys.readouterr().out


def test_signverod_is_converted_from_its_tables(tmp_path):
    archive = archive_of(signverod_files(), tmp_path / "signverod.zip")
    assert run("signverod", "--from", archive, "--output", tmp_path / "data") == 0
    card = json.loads((tmp_path / "data/signverod/dataset_card.json").read_text())
    assert {name: split["pages"] for name, split in card["splits"].items()} == {"train": 4, "eval": 2}
    assert card["classes"]["4"] == "date"


def test_absent_pages_are_listed_or_fatal(tmp_path, capsys):
    files = signverod_files()
    del files["images/blease.png"]
    archive = archive_of(files, tmp_path / "signverod.zip")
    with pytest.raises(UserError, match="blease"):
        run("signverod", "--from", archive, "--output", tmp_path / "data")
    assert run("signverod", "--from", archive, "--output", tmp_path / "data", "--partial") == 0
    assert "absent" in capsys.readouterr().out


def test_signverods_ready_records_are_taken_where_there_are_no_tables(tmp_path):
    from training.data import signverod, tfrecord
    from training.data.page import Box, Page

    pages = [
        Page(f"p{n}", f"d{n}", picture(n, (200, 260)), 260, 200, (Box(0.1, 0.1, 0.3, 0.4, 1 + n % 4),))
        for n in range(6)
    ]
    made = tmp_path / "made"
    tfrecord.write_dataset(
        made, {"train": pages[:4], "eval": pages[4:]}, signverod.CLASSES, shards=1, source="test"
    )
    files = {f"tfrecords/{file.name}": file.read_bytes() for file in made.glob("*.tfrecord")}
    archive = archive_of(files, tmp_path / "signverod.zip")
    assert run("signverod", "--from", archive, "--output", tmp_path / "data") == 0
    assert len(list((tmp_path / "data/signverod").glob("train*"))) >= 1


@pytest.mark.parametrize("name", sorted(fetch.SOURCES))
def test_another_layout_is_refused(tmp_path, name):
    archive = archive_of({"readme.txt": b"hello"}, tmp_path / "some.zip")
    with pytest.raises(UserError, match="is this"):
        run(name, "--from", archive, "--output", tmp_path / "data")


def test_a_set_of_another_origin_is_not_replaced(tmp_path):
    cedar, siamese = (archive_of(f(), tmp_path / f"{f.__name__}.zip") for f in (cedar_files, siamese_files))
    run("cedar", "--from", cedar, "--output", tmp_path / "data")
    with pytest.raises(UserError, match="holds cedar; name another folder with --target"):
        run("siamese", "--from", siamese, "--output", tmp_path / "data")
    assert run("siamese", "--from", siamese, "--output", tmp_path / "data", "--target", "other") == 0
    assert run("cedar", "--from", cedar, "--output", tmp_path / "data") == 0


def test_one_setting_says_where_data_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNVER_DATA", str(tmp_path / "elsewhere"))
    archive = archive_of(cedar_files(), tmp_path / "cedar.zip")
    assert run("cedar", "--from", archive) == 0
    from training.data import records

    assert records.match_files("data/signatures/train*")
    assert parse_arguments(["check", "data/signatures", "--data_dir", str(tmp_path / "third")])
    assert os.environ["SIGNVER_DATA"] == str(tmp_path / "third")
    with pytest.raises(UserError, match="third/signatures"):
        records.match_files("data/signatures/train*")


def test_a_set_that_data_stands_for_is_protected_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SIGNVER_DATA", "data/sets")
    own = tmp_path / "here/data/sets/signatures"
    own.mkdir(parents=True)
    (own / "mine.txt").write_text("mine")
    archive = archive_of(cedar_files(), tmp_path / "cedar.zip")
    for options in ((), ("--output", "data")):
        with pytest.raises(UserError, match="holds something else"):
            run("cedar", "--from", archive, *options)
    assert run("cedar", "--from", archive, "--output", "data", "--target", "other") == 0
    assert f"{own.with_name('other')}: ready" in capsys.readouterr().out
    assert sorted(path.name for path in own.parent.iterdir()) == ["downloads", "other", "raw", "signatures"]
    assert sorted(path.name for path in own.parent.parent.iterdir()) == ["sets"]


# Hostile and damaged archives.


def hostile(tmp_path, change):
    path = archive_of(cedar_files((1, 2)), tmp_path / "hostile.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        change(archive)
    return path


def link(archive):
    info = zipfile.ZipInfo("signatures/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.writestr("../outside.txt", b"x"), "leave the folder"),
        (lambda a: a.writestr("/absolute.txt", b"x"), "leave the folder"),
        (lambda a: a.writestr("a/../../outside.txt", b"x"), "leave the folder"),
        (lambda a: a.writestr("..\\outside.txt", b"x"), "leave the folder"),
        (lambda a: a.writestr("C:/windows.txt", b"x"), "leave the folder"),
        (link, "link or a device"),
        (lambda a: a.writestr("bomb.bin", b"\0" * 80_000_000), "no images pack so well"),
        (lambda a: a.writestr("SIGNATURES/full_org/ORIGINAL_1_1.png", b"x"), "twice"),
    ],
)
def test_hostile_archives_are_refused_whole(tmp_path, change, message):
    path = hostile(tmp_path, change)
    with pytest.raises(UserError, match=message):
        run("cedar", "--from", path, "--output", tmp_path / "data")
    assert not (tmp_path / "data/raw/cedar").exists()
    assert not (tmp_path / "outside.txt").exists()
    assert not list(tmp_path.glob("data/**/*.png"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, share):
    whole = archive_of(cedar_files(), tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "half.zip"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="damaged or no zip archive"):
        run("cedar", "--from", path, "--output", tmp_path / "data")


def test_a_flipped_bit_is_refused(tmp_path):
    path = archive_of(cedar_files(), tmp_path / "cedar.zip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        run("cedar", "--from", path, "--output", tmp_path / "data")
    assert not (tmp_path / "data/raw/cedar").exists()


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    path = archive_of(cedar_files(), tmp_path / "cedar.zip")
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="GB are free"):
        run("cedar", "--from", path, "--output", tmp_path / "data")
    assert not (tmp_path / "data/raw").exists()


def test_room_is_looked_for_where_the_files_will_be(tmp_path, monkeypatch):
    (tmp_path / "stick").mkdir()
    path = archive_of(cedar_files(), tmp_path / "stick/cedar.zip")
    asked = []
    usage = type("Usage", (), {"free": 1e12})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: asked.append(folder) or usage)
    run("cedar", "--from", path, "--output", tmp_path / "data")
    assert asked
    assert not any((tmp_path / "stick") in (folder, *folder.parents) for folder in asked)


def test_a_damaged_record_of_an_archive_is_said(tmp_path):
    path = archive_of(cedar_files(), tmp_path / "cedar.zip")
    run("cedar", "--from", path, "--output", tmp_path / "data")
    (record,) = (tmp_path / "data").rglob("cedar*.json")
    record.write_text('{"size": 3}')
    with pytest.raises(UserError, match="damaged"):
        run("cedar", "--from", path, "--output", tmp_path / "data")


def test_another_archive_than_last_time_is_refused(tmp_path):
    first = archive_of(cedar_files(), tmp_path / "cedar.zip")
    run("cedar", "--from", first, "--output", tmp_path / "data")
    second = archive_of(cedar_files((1, 2, 3)), tmp_path / "newer.zip")
    with pytest.raises(UserError, match="not the archive that was recorded"):
        run("cedar", "--from", second, "--output", tmp_path / "data")


# The download, from a server that answers as Kaggle's does.


class Kaggle(http.server.ThreadingHTTPServer):
    """Answers the client's POST with a redirect to a file that it serves in ranges."""

    def __init__(self, content):
        super().__init__(("localhost", 0), Handler)
        self.content, self.log, self.cuts, self.refuse, self.md5 = content, [], [], [], None
        self.tag = '"v1"'


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        server = self.server
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.log.append(("POST", self.path, self.headers.get("Authorization", "")))
        if server.refuse:
            status = server.refuse.pop(0)
            self.answer(status, [("Retry-After", "0"), ("Content-Type", "text/plain")], b"no")
            return
        if self.path.endswith("IntrospectToken"):
            answer = json.dumps({"active": True, "username": "somebody"}).encode()
            self.answer(200, [("Content-Type", "application/json")], answer)
            return
        self.answer(302, [("Location", f"http://localhost:{server.server_port}/file")])

    def do_GET(self):
        server, content = self.server, self.server.content
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range") in (None, server.tag):
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        server.log.append(("GET", start, self.headers.get("Authorization", "")))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", server.tag)
        self.send_header("Last-Modified", "Mon, 02 Jan 2023 10:00:00 GMT")
        self.send_header("Content-Type", "application/zip")
        if server.md5:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={server.md5}")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = next((cut for cut in sorted(server.cuts) if cut > start), len(content))
        if end < len(content):
            server.cuts.remove(end)
        self.wfile.write(content[start:end])
        if end < len(content):
            self.wfile.flush()
            self.close_connection = True


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    environment = pytest.importorskip("kagglesdk.kaggle_env", reason="an older client without a test address")
    # The client writes a megabyte at a time; a cut within the first would leave nothing to go on from.
    padding = {"padding.bin": np.random.default_rng(0).bytes(12_000_000)}
    content = archive_of(padding | cedar_files(), tmp_path / "source.zip").read_bytes()
    server = Kaggle(content)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "a-secret-key-0123")
    address = f"http://localhost:{server.server_port}"
    monkeypatch.setitem(environment._env_to_endpoint, environment.KaggleEnv.PROD, address)
    # The client waits between its own tries.
    from kaggle.api import kaggle_api_extended

    monkeypatch.setattr(kaggle_api_extended.time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def test_a_download_is_converted_recorded_and_never_repeated(tmp_path, kaggle, capsys):
    assert run("cedar", "--output", tmp_path / "data") == 0
    record = json.loads((tmp_path / "data/downloads/cedar.json").read_text())
    assert record["sha256"] == hashlib.sha256(kaggle.content).hexdigest()
    asked = len(kaggle.log)
    out = capsys.readouterr()
    assert "For research" in out.out  # the terms
    assert run("cedar", "--output", tmp_path / "data") == 0
    assert run("cedar", "--output", tmp_path / "data", "--offline") == 0
    assert len(kaggle.log) == asked
    assert "For research" not in capsys.readouterr().out
    text = out.out + out.err + "".join(p.read_text() for p in (tmp_path / "data/downloads").glob("*.json"))
    assert "a-secret-key" not in text


def test_the_dataset_is_asked_for_with_the_credentials(tmp_path, kaggle):
    fetch.obtain("cedar", tmp_path / "data")
    method, path, authorization = kaggle.log[0]
    assert (method, path.split("/")[-1]) == ("POST", "DownloadDataset")
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == "somebody:a-secret-key-0123"


def test_a_token_is_enough(tmp_path, kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token-987")
    fetch.obtain("cedar", tmp_path / "data")
    assert {authorization for method, _, authorization in kaggle.log if method == "POST"} == {
        "Bearer token-987"
    }


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_connection_cut_at_any_tenth_goes_on_there(tmp_path, kaggle, tenth):
    kaggle.cuts = [len(kaggle.content) * tenth // 10]
    path = fetch.obtain("cedar", tmp_path / "data")
    assert path.read_bytes() == kaggle.content
    starts = [start for method, start, _ in kaggle.log if method == "GET"]
    assert starts[-1] > 0


def test_a_connection_cut_at_every_tenth_arrives(tmp_path, kaggle):
    kaggle.cuts = [len(kaggle.content) * tenth // 10 for tenth in range(1, 10)]
    assert fetch.obtain("cedar", tmp_path / "data").read_bytes() == kaggle.content


def test_an_interrupted_command_goes_on(tmp_path, kaggle, monkeypatch):
    kaggle.cuts = [len(kaggle.content) // 2]
    from kaggle.api.kaggle_api_extended import KaggleApi

    original = KaggleApi.download_file

    def once(self, *arguments, **options):
        return original(self, *arguments, **(options | {"max_retries": 0}))

    with monkeypatch.context() as patch:
        patch.setattr(KaggleApi, "download_file", once)
        patch.setattr(fetch, "_TRIES", 0)
        with pytest.raises(UserError, match="Repeat the command to go on"):
            fetch.obtain("cedar", tmp_path / "data")
    kaggle.log.clear()
    assert fetch.obtain("cedar", tmp_path / "data").read_bytes() == kaggle.content
    assert any(method == "GET" and start > 0 for method, start, _ in kaggle.log)


def test_too_many_requests_are_asked_again(tmp_path, kaggle):
    kaggle.refuse = [429, 429, 503]
    assert fetch.obtain("cedar", tmp_path / "data").read_bytes() == kaggle.content


def test_endless_refusals_end(tmp_path, kaggle):
    kaggle.refuse = [429] * 500
    with pytest.raises(UserError, match="Repeat the command"):
        fetch.obtain("cedar", tmp_path / "data")


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refused the credentials"), (403, "accept the set's terms"), (404, "knows no such")],
)
def test_refusals_say_what_to_do_in_two_lines(tmp_path, kaggle, status, message):
    kaggle.refuse = [status] * 50
    with pytest.raises(UserError, match=message) as found:
        fetch.obtain("cedar", tmp_path / "data")
    assert len(str(found.value).splitlines()) <= 2
    assert "secret" not in str(found.value)


def test_the_servers_checksum_is_compared(tmp_path, kaggle):
    kaggle.md5 = base64.b64encode(hashlib.md5(b"something else").digest()).decode()
    with pytest.raises(UserError, match="another checksum"):
        fetch.obtain("cedar", tmp_path / "data")
    kaggle.md5 = base64.b64encode(hashlib.md5(kaggle.content).digest()).decode()
    assert fetch.obtain("cedar", tmp_path / "data").exists()


def test_without_credentials_two_lines_say_where_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no Kaggle credentials") as found:
        fetch.obtain("cedar", tmp_path / "data")
    assert len(str(found.value).splitlines()) == 2
    assert "kaggle.com/settings" in str(found.value)


def test_offline_never_touches_the_network(tmp_path, kaggle):
    with pytest.raises(UserError, match="--offline"):
        fetch.obtain("cedar", tmp_path / "data", offline=True)
    assert not kaggle.log
