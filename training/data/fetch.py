"""Public data sets by name: downloaded from Kaggle, unpacked, converted and checked.

`OUTPUT/downloads/NAME.zip` is the archive, with a record of its checksum beside it; `OUTPUT/raw/NAME` what
was in it; `OUTPUT/signverod` or `OUTPUT/signatures` the data set that the shipped configs read. What is there
is not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import stat
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

from training.data import location
from training.errors import UserError
from training.files import atomic_folder, digest, sha256, write_json

# What an honest archive of images stays below: uncompressed bytes for each compressed one, members.
_MOST_RATIO = 60
_MOST_MEMBERS = 200_000
_SPARE_BYTES = 500_000_000
# Cut connections in a row that bring no byte, and answers of "too many requests", before giving up.
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Source:
    """A set on Kaggle.

    Attributes:
      slug: owner and name.
      target: folder of the converted set, which the shipped configs read.
      terms: what its user should know.
    """

    slug: str
    target: str
    terms: str


SOURCES = {
    "signverod": Source(
        "victordibia/signverod",
        "signverod",
        "SignVerOD (Victor Dibia, 2022): pages of Tobacco800, NIST, bank cheques and GSA leases with boxes "
        "of "
        "signatures, initials, redactions and dates. Annotation: CC0 1.0 by its publisher. The pages are "
        "public "
        "documents with real people's signatures: do not publish them further without need.",
    ),
    "cedar": Source(
        "shreelakshmigp/cedardataset",
        "signatures",
        "CEDAR signatures (University at Buffalo): 55 signers, 24 genuine and 24 forged each. For research; "
        "ask "
        "CEDAR before any other use. Models trained on it carry real people's signatures.",
    ),
    "siamese": Source(
        "robinreni/signature-verification-dataset",
        "signatures",
        "Signature verification set (robinreni): real signatures and forgeries of ICDAR 2011. For research; "
        "its "
        "Kaggle page states the terms. Models trained on it carry real people's signatures.",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fetch`."""
    parser.add_argument("name", choices=sorted(SOURCES))
    location.add_argument(parser)
    parser.add_argument(
        "--output", type=pathlib.Path, default=None, help="folder of data sets (default data)"
    )
    parser.add_argument(
        "--from", dest="archive", type=pathlib.Path, help="an archive that was downloaded by hand"
    )
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument(
        "--target", help="name of the converted set, instead of the one that the configs read"
    )
    parser.add_argument(
        "--partial", action="store_true", help="SignVerOD: leave pages out that the archive lacks"
    )
    parser.add_argument(
        "--max_side", type=int, default=1400, help="reduce pages with a longer side (default 1400; 0: keep)"
    )


def run(arguments: argparse.Namespace, convert: Callable[[list[str]], int]) -> int:
    """Fetches, unpacks, converts and checks.

    Args:
      arguments: of `add_arguments`.
      convert: takes the command line of `python -m training.data` and returns its exit code.

    Raises:
      UserError: whatever is in the way, with what to do.
    """
    source = SOURCES[arguments.name]
    output = location.locate_path(arguments.output) if arguments.output else location.data_dir()
    # Absolute, so that no command below takes it for a name to be looked for elsewhere once more.
    output = output.absolute()
    target = output / (arguments.target or source.target)
    record = output / "downloads" / f"{arguments.name}.json"
    _refuse_another(target, arguments.name)
    archive = obtain(arguments.name, output, arguments.archive, arguments.offline)
    raw = output / "raw" / arguments.name
    if not raw.exists():
        print(f"unpacking {archive} to {raw}", flush=True)
        unpack(archive, raw)
    kind, folder, note = recognise(arguments.name, raw)
    print(f"{raw}: {note}", flush=True)
    command = ["convert", kind, f"--input={folder}", f"--output={target}"]
    if kind == "signverod":
        command += ["--partial"] if arguments.partial else []
    if kind == "tfrecord":
        command.append("--names=signature,initials,redaction,date")
    if kind in ("signverod", "tfrecord"):
        command.append(f"--max_side={arguments.max_side}")
    convert(command)
    write_json(target.parent / "downloads" / f"{target.name}.set.json", {"fetched": arguments.name})
    code = convert(["check", str(target)])
    if code:
        print(f"{target}: converted, but `check` found the errors above; the archive's origin is in {record}")
    else:
        print(f"{target}: ready; its origin is in {record} and its counts in {target}")
    return code


def obtain(
    name: str, output: pathlib.Path, given: pathlib.Path | None = None, offline: bool = False
) -> pathlib.Path:
    """The archive: the given one, the one that is there, or a download.

    Raises:
      UserError: it is absent and may not be fetched, damaged, or another one than last time.
    """
    archive, record = output / "downloads" / f"{name}.zip", output / "downloads" / f"{name}.json"
    if given is not None:
        if not given.is_file():
            raise UserError(f"--from {given}: no such file.")
        _compare(given, record)
        _record(name, given, record)
        return given
    if archive.exists() and record.exists():
        _compare(archive, record)
        return archive
    if offline:
        raise UserError(
            f"--offline: {archive} is not here. Download "
            f"https://www.kaggle.com/datasets/{SOURCES[name].slug} by hand and give it with --from FILE.zip."
        )
    _say_terms(name)
    archive.parent.mkdir(parents=True, exist_ok=True)
    download(SOURCES[name].slug, archive)
    _compare(archive, record)
    _record(name, archive, record)
    return archive


def download(slug: str, archive: pathlib.Path) -> None:
    """Downloads a data set of Kaggle through its official client, going on where an earlier try was cut.

    Raises:
      UserError: no or refused credentials, no such set, no room, or a connection that brings nothing.
    """
    require_credentials()
    partial = archive.with_name(slug.partition("/")[2] + ".zip")
    client = _client(partial)
    tries, before = 0, -1
    while True:
        try:
            _quietly(lambda: client.dataset_download_files(slug, path=str(archive.parent), quiet=False))
            break
        except UserError:
            raise
        except Exception as error:  # requests, urllib3, OSError, ValueError: the client raises what it meets
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None and 400 <= status < 429:
                raise UserError(_refusal(slug, status)) from None
            size = partial.stat().st_size if partial.exists() else 0
            tries = tries + 1 if size == before else 0
            before = size
            if tries >= _TRIES:
                raise UserError(
                    f"download of {slug}: {_first_line(error)}; {size:,} bytes are kept in {partial}.\n"
                    "Repeat the command to go on from there, or download by hand and give --from FILE.zip."
                ) from None
            wait = _waiting_time(error, tries)
            print(f"download: {_first_line(error)}; again in {wait:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)
    _verify_md5(client, partial)
    os.replace(partial, archive)


def require_credentials() -> None:
    """Looks where Kaggle's client looks; never reads a secret into a message.

    Raises:
      UserError: there are none.
    """
    environment = os.environ
    if environment.get("KAGGLE_API_TOKEN") or (
        environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY")
    ):
        return
    folders = [pathlib.Path.home() / ".kaggle", pathlib.Path.home() / ".config" / "kaggle"]
    if environment.get("KAGGLE_CONFIG_DIR"):
        folders.insert(0, pathlib.Path(environment["KAGGLE_CONFIG_DIR"]))
    names = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")
    if any((folder / name).is_file() for folder in folders for name in names):
        return
    raise UserError(
        "no Kaggle credentials: set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or keep "
        "kaggle.json in "
        "~/.kaggle.\nGet them at https://www.kaggle.com/settings under API, or download by hand and give "
        "--from FILE.zip."
    )


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks an archive, whole or not at all.

    Raises:
      UserError: it is no zip, damaged, encrypted, or would leave the folder, link, or fill the disk.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _require_room(folder, _refuse_hostile(archive, members))
            with atomic_folder(folder) as temporary:
                for member in _progress(members):
                    opened.extract(member, temporary)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{archive}: damaged or no zip archive ({error}). Remove it and fetch again."
        ) from error
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}).") from error


def recognise(name: str, raw: pathlib.Path) -> tuple[str, pathlib.Path, str]:
    """The layout of an unpacked set.

    Returns:
      the reader of `convert`, the folder for it, and a sentence that says what was found.

    Raises:
      UserError: none of the known layouts.
    """
    if name == "signverod":
        for table in sorted(raw.rglob("image_ids.csv")):
            if any(table.parent.rglob("*.png")) or any(table.parent.rglob("*.jpg")):
                return "signverod", table.parent, "SignVerOD's tables and pages; its splits are repaired"
        for shard in sorted(raw.rglob("tfrecords")):
            if any(shard.glob("train*")):
                return "tfrecord", shard, "SignVerOD's ready TFRecords, without pages of their own"
        raise UserError(f"{raw}: neither image_ids.csv with pages nor tfrecords/train*; is this SignVerOD?")
    if name == "cedar":
        for folder in sorted(raw.rglob("full_org")):
            if (folder.parent / "full_forg").is_dir():
                return "signatures", folder.parent, "CEDAR's full_org and full_forg; paper will be whitened"
        raise UserError(f"{raw}: no full_org beside a full_forg; is this CEDAR?")
    for folder in sorted(raw.rglob("train")):
        writers = [part.name for part in folder.iterdir() if part.is_dir()]
        if any(f"{writer}_forg" in writers for writer in writers):
            note = "writers of train/; test/ repeats them and is left out, and splits are made by writer"
            return "signatures", folder, note
    raise UserError(f"{raw}: no train/ with WRITER and WRITER_forg; is this the Siamese set?")


def _refuse_hostile(archive: pathlib.Path, members: list[zipfile.ZipInfo]) -> int:
    """Raises UserError where an archive could do harm; returns the bytes that will come out of it."""
    if len(members) > _MOST_MEMBERS:
        raise UserError(f"{archive}: {len(members):,} members; no set here has more than {_MOST_MEMBERS:,}.")
    seen: set[str] = set()
    for member in members:
        parts = pathlib.PurePosixPath(member.filename.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in member.filename:
            raise UserError(f"{archive}: member '{member.filename[:80]}' would leave the folder; refused.")
        mode = member.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive}: member '{member.filename[:80]}' is a link or a device; refused.")
        if member.flag_bits & 1:
            raise UserError(f"{archive}: member '{member.filename[:80]}' is encrypted.")
        key = "/".join(parts).casefold()
        if not member.is_dir() and key in seen:
            raise UserError(f"{archive}: member '{member.filename[:80]}' stands in it twice; refused.")
        seen.add(key)
    size = sum(member.file_size for member in members)
    if size > _MOST_RATIO * max(archive.stat().st_size, 1_000_000):
        raise UserError(
            f"{archive}: {size:,} bytes would come out of {archive.stat().st_size:,}; no images pack so well."
        )
    return size


def _require_room(place: pathlib.Path, size: int) -> None:
    """Refuses to put so many bytes into a folder, or a file's folder, that is there or will be."""
    folder = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    needed, free = (size + _SPARE_BYTES) / 1e9, shutil.disk_usage(folder).free / 1e9
    if needed > free:
        raise UserError(
            f"{folder}: {needed:.1f} GB are needed and {free:.1f} GB are free. Make room or name another "
            "--output."
        )


def _client(partial: pathlib.Path) -> Any:
    """Kaggle's client, authenticated, which looks for room before it writes."""
    try:
        # Importing it authenticates, and may print.
        with contextlib.redirect_stdout(io.StringIO()):
            from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:
        raise UserError("the package kaggle is missing; scripts/setup.sh installs it.") from error

    class Client(KaggleApi):
        """Knows the room that is left and the checksum that the server names."""

        md5 = ""

        def download_file(self, response: Any, *arguments: Any, **options: Any) -> None:
            """Looks for room, then downloads."""
            there = partial.stat().st_size if partial.exists() else 0
            _require_room(partial, max(0, int(response.headers.get("Content-Length") or 0) - there))
            for part in (response.headers.get("x-goog-hash") or "").split(","):
                if part.strip().startswith("md5="):
                    self.md5 = part.strip()[4:]
            super().download_file(response, *arguments, **options)

    client = Client()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            client.authenticate()
    except (SystemExit, Exception) as error:
        raise UserError(_refusal("Kaggle", 401)) from error
    return client


def _verify_md5(client: Any, path: pathlib.Path) -> None:
    import base64
    import hashlib

    if not client.md5:
        return
    found = digest(path, hashlib.md5(usedforsecurity=False))
    if base64.b64encode(found).decode() != client.md5:
        path.unlink()
        raise UserError(f"{path}: came with another checksum than the server names; removed. Fetch again.")


def _quietly(action: Callable[[], Any]) -> None:
    """Runs the client without its lines on standard output; its progress bar is on standard error."""
    with contextlib.redirect_stdout(io.StringIO()):
        action()


def _refusal(slug: str, status: int) -> str:
    if status == 404:
        return f"{slug}: Kaggle knows no such data set (404). Download by hand and give --from FILE.zip."
    reason = {401: "Kaggle refused the credentials (401)", 403: "Kaggle does not let this account in (403)"}
    return (
        f"{slug}: {reason.get(status, f'Kaggle answered {status}')}.\n"
        "Make a new token at https://www.kaggle.com/settings under API, and accept the set's terms on its "
        "page "
        "where it asks for that."
    )


def _waiting_time(error: Exception, tries: int) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return min(300.0, max(0.0, float(headers["Retry-After"])))
    return float(min(60, 2**tries))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _compare(archive: pathlib.Path, record: pathlib.Path) -> None:
    """Refuses an archive that is another one than the recorded."""
    import json

    if not record.exists():
        return
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        known = {key: known[key] for key in ("size", "sha256", "date")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record}: damaged ({error!r:.80}); remove it and fetch again.") from error
    if known["size"] != archive.stat().st_size or known["sha256"] != sha256(archive):
        raise UserError(
            f"{archive}: not the archive that was recorded on {known['date']} ({known['size']:,} bytes, "
            f"sha256 "
            f"{known['sha256'][:12]}…): damaged, or a newer version. To take it, remove {record} and "
            f"{record.parent.parent / 'raw' / record.stem}."
        )


def _record(name: str, archive: pathlib.Path, record: pathlib.Path) -> None:
    if not record.exists():
        write_json(
            record,
            {
                "source": f"https://www.kaggle.com/datasets/{SOURCES[name].slug}",
                "terms": SOURCES[name].terms,
                "sha256": sha256(archive),
                "size": archive.stat().st_size,
                "date": time.strftime("%Y-%m-%d"),
            },
        )


def _refuse_another(target: pathlib.Path, name: str) -> None:
    """A set of another origin is not replaced unasked."""
    import json

    mark = target.parent / "downloads" / f"{target.name}.set.json"
    if not target.exists():
        return
    found = json.loads(mark.read_text(encoding="utf-8"))["fetched"] if mark.exists() else "something else"
    if found != name:
        raise UserError(f"{target}: exists and holds {found}; name another folder with --target.")


def _say_terms(name: str) -> None:
    print(f"{SOURCES[name].terms}\nhttps://www.kaggle.com/datasets/{SOURCES[name].slug}\n", flush=True)


def _progress(members: list[zipfile.ZipInfo]) -> Any:
    from tqdm import tqdm

    return tqdm(members, desc="unpack", unit="file", mininterval=0.5 if sys.stderr.isatty() else 60)
