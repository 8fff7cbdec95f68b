"""Files that are either whole or absent: written beside the target, then renamed."""

from __future__ import annotations

import os
import pathlib
import tempfile

from signver.errors import SignVerError


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file, making its folder where need be.

    Raises:
      SignVerError: the folder cannot be written, or the disk is full.
    """
    target = pathlib.Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        # mkstemp makes private files; a result is as readable as the user's umask says.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise SignVerError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)
