"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in a file, a config or a command line, said in one or two lines.

    The message names what was found, what was expected and what to do. Commands turn it into
    exit code 2 without a stack trace; every other exception is a bug of ours and keeps its trace.
    """

    exit_code = 2


def run_command(main: Callable[[], int | None]) -> None:
    """Runs `main` as a process entry: its return value is the exit code, a `UserError` its own."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
