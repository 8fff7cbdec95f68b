"""Where data sets lie: one setting for every command and every config.

Configs and commands name sets below `data/`. `--data_dir DIR`, or the variable SIGNVER_DATA, puts another
folder in the place of that `data/`; other paths stay as they are.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Sequence
from typing import Any

VARIABLE = "SIGNVER_DATA"
_DEFAULT = "data"


def data_dir() -> pathlib.Path:
    """The folder of data sets."""
    return pathlib.Path(os.environ.get(VARIABLE) or _DEFAULT)


def locate_path(path: pathlib.Path) -> pathlib.Path:
    """`locate` of a path."""
    return pathlib.Path(locate(path.as_posix()))


def locate(path: str) -> str:
    """A path or pattern as it is meant: `data` and what is below it lie in `data_dir()`."""
    if not os.environ.get(VARIABLE) or not f"{path}/".startswith(f"{_DEFAULT}/"):
        return path
    return os.path.join(data_dir(), path[len(_DEFAULT) + 1 :])


class _Set(argparse.Action):
    """Sets the variable at once, so that the processes that the command starts have it too."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse."""
        os.environ[VARIABLE] = str(values)
        setattr(namespace, self.dest, values)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--data_dir`."""
    parser.add_argument(
        "--data_dir",
        action=_Set,
        default=os.environ.get(VARIABLE),
        metavar="DIR",
        help=f"stands for the data/ of configs and commands; or set {VARIABLE}",
    )
