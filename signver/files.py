"""Files that are either whole or absent: written beside the target, then renamed."""

from __future__ import annotations

import os
import pathlib
import secrets

from signver.errors import SignVerError


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file, making its folder where need be.

    Raises:
      SignVerError: the folder cannot be written, or the disk is full.
    """
    target = pathlib.Path(path)
    # Not by `tempfile`: its files are private, and what the user's umask says can only be asked by
    # changing it, for all threads.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as stream:
                stream.write(data)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SignVerError(f"cannot write {target}: {error.strerror or error}.") from error
