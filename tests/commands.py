"""The project's commands as processes of their own, forked from one that has TensorFlow loaded.

Loading it takes five to ten seconds, and tests run a hundred commands. What runs is the module as
`python -m` runs it: its own process, arguments, output and exit code, and the interpreter's own end.
"""

from __future__ import annotations

import json
import os
import pathlib
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Nothing of these starts TensorFlow's threads, which a fork would lose.
_LOADED = ("training.runner", "training.detector.task", "training.cleaner.task", "training.extractor.task")
_LOADED += ("export.bundle", "export.onnx_model", "export.saved_model", "export.validate")


class _Server:
    """One process that forks; started when first needed, ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        with self._lock, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-W", "ignore", __file__],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            process = self._process
            assert process.stdin is not None
            assert process.stdout is not None
            places = [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in (out, err)]
            process.stdin.write(json.dumps([arguments, *places]) + "\n")
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], timeout)[0]
            code = process.stdout.readline() if ready else ""
            out.seek(0)
            err.seek(0)
            texts = out.read(), err.read()
            if not code:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise subprocess.TimeoutExpired(arguments, timeout, *texts)
            return subprocess.CompletedProcess(arguments, int(code), *texts)


_SERVER = _Server()


def run(*arguments: object, code: int | None = 0, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS` in the project's folder, its output as text.

    Args:
      arguments: a module and what it is given.
      code: the exit code that must come; None for any.
      timeout: seconds, after which it is killed and the test fails.
    """
    done = _SERVER.run([str(argument) for argument in arguments], timeout)
    if code is not None:
        assert done.returncode == code, f"{done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def _serve() -> None:
    """Forks for each line of standard input and answers with the exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[0] = str(ROOT)
    for name in _LOADED:
        __import__(name)
    for line in sys.stdin:
        arguments, *places = json.loads(line)
        child = os.fork()
        if not child:
            _become(arguments, places)
            return
        status = os.waitpid(child, 0)[1]
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _become(arguments: list[str], places: list[str]) -> None:
    """The module, in this process."""
    for number, place in enumerate(places, 1):
        os.dup2(os.open(place, os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
