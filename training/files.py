"""Files that are either whole or absent: written beside the target, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from training.errors import UserError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the target's folder, renamed to `path` when the block ends well.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    target = pathlib.Path(path)
    temporary = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path` that replaces it when the block ends well.

    Raises:
      UserError: the parent folder cannot be written, or the disk is full.
    """
    target = pathlib.Path(path)
    temporary = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(target: pathlib.Path) -> pathlib.Path:
    """A hidden name in the target's folder that nobody else has.

    Not by `tempfile`: what it makes is private, and what the user's umask says can only be asked by
    changing it, for all threads.
    """
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys, atomically; what is not finite becomes null."""
    with atomic_file(path) as temporary:
        text = json.dumps(_finite(value), indent=2, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      UserError: no such file, no JSON, or JSON of another kind.
    """
    name = os.fspath(path)
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{name}: expected a JSON object, found a {type(value).__name__}.")
    return value


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    return digest(path, hashlib.sha256()).hex()


def digest(path: str | os.PathLike[str], algorithm: hashlib._Hash) -> bytes:
    """The digest of a file's bytes by a fresh hash of hashlib's."""
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            algorithm.update(block)
    return algorithm.digest()
