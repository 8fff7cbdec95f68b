"""The command line `signver`: what is on these pages, whose are these signatures?"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import glob
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from signver.command_options import parse_arguments
from signver.errors import SignVerError
from signver.progress import Progress

_SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
_SUFFIXES |= {".pbm", ".pgm", ".ppm", ".pdf"}
DONE, FAILED, MISTAKE, NO, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse_arguments(arguments)
    # A file's name need not be text in the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(options)
    except SignVerError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read the answers has enough; Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(options: argparse.Namespace) -> int:
    if options.command == "writers":
        return _list_writers(options)
    files = list(find_files(options.files))
    # Only now: what a typo costs is no second of loading.
    from signver.command_work import WORK, Pictures, check_options, make_pipeline, shared_out

    check_options(options)
    pictures = Pictures(
        options.output,
        files,
        _also_read(options),
        options.command == "search" or (options.command == "clean" and options.pages),
    )
    jobs, threads = shared_out(options, len(files))
    pipeline = make_pipeline(options, threads)
    work = WORK[options.command](options, pipeline, pictures)
    results, errors = _do(files, work, jobs, options.json)
    if options.command == "enroll" and results:
        pipeline.save_index(options.index)
    if options.json:
        json.dump({"files": results, "failed": len(errors), "errors": errors}, sys.stdout, indent=2)
        print(flush=True)
    return FAILED if errors else _answer(options.command, results)


def _list_writers(options: argparse.Namespace) -> int:
    from signver.command_work import check_options, writers

    check_options(options)
    found = writers(options)
    if options.json:
        print(json.dumps({"writers": found}, indent=2))
    else:
        for each in found:
            print(f"{each['identity']}: {each['references']} signatures")
    return DONE


def _also_read(options: argparse.Namespace) -> list[str]:
    """Pictures that a command reads beside its files."""
    return [
        *(getattr(options, "reference", None) or ()),
        *([options.signature] if "signature" in options else ()),
    ]


def _do(
    files: Sequence[str], work: Callable[[str], dict[str, Any]], jobs: int, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The results, and the files that could not be used with the reason."""
    progress = Progress(len(files))
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    try:
        for file, done in _in_turn(files, work, jobs):
            try:
                results.append(done())
            except (SignVerError, OSError) as error:
                errors.append({"file": file, "error": str(error)})
                progress.clear()
                print(f"error: {error}", file=sys.stderr)
            else:
                if not quiet:
                    progress.clear()
                    print(_line(results[-1]), flush=True)
            progress.step()
    finally:
        progress.clear()
    return results, errors


def _in_turn(
    files: Sequence[str], work: Callable[[str], dict[str, Any]], jobs: int
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Each file with what gives its result or raises; in their order, whichever is done first."""
    if jobs == 1:
        yield from ((file, functools.partial(work, file)) for file in files)
        return
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            for file, future in [(file, pool.submit(work, file)) for file in files]:
                yield file, future.result
        finally:
            pool.shutdown(cancel_futures=True)


def find_files(names: Sequence[str]) -> Iterator[str]:
    """Each picture or PDF that a list of files, folders and patterns names, once.

    Raises:
      SignVerError: a name matches nothing, or cannot be looked at.
    """
    seen: set[str] = set()
    for name in names:
        try:
            found = _named(name)
        except OSError as error:
            raise SignVerError(f"{name}: cannot be read ({error.strerror}).") from error
        if not found:
            raise SignVerError(f"{name}: no such file, no folder with pictures, no pattern that matches.")
        yield from (file for file in found if file not in seen)
        seen.update(found)


def _named(name: str) -> list[str]:
    path = pathlib.Path(name)
    if path.is_dir():
        return sorted(str(file) for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    return [name] if path.exists() else sorted(_matching(name))


def _matching(pattern: str) -> list[str]:
    return [name for name in glob.glob(pattern, recursive=True) if pathlib.Path(name).is_file()]


def _answer(command: str, results: Sequence[dict[str, Any]]) -> int:
    answers = [result["answer"] for result in results if "answer" in result]
    if command == "search":
        return DONE if any(answers) else NO
    return DONE if all(answers) else NO


def _line(result: dict[str, Any]) -> str:
    """One file's answer for people."""
    file = result["file"]
    if "pages" in result:
        return "\n".join(_page_lines(result))
    if "marks" in result:
        return f"{file}: {_marks(result['marks'])}"
    if "hits" in result:
        hits = ", ".join(f"page {hit['page']} {hit['similarity']:.2f}" for hit in result["hits"])
        if not hits and result["most_alike"] is not None:
            hits = f"not found (most alike: {result['most_alike']:.2f})"
        return f"{file}: {hits or 'not found (no signature on it)'}"
    if "candidates" in result:
        found = ", ".join(f"{each['identity']} {each['similarity']:.2f}" for each in result["candidates"])
        who = result["identity"] or "nobody enrolled"
        return f"{file}: {who} ({found or 'the index is empty'}{_where(result)})"
    if "genuine" in result:
        sure = "" if result["probability"] is None else f", probability {result['probability']:.2f}"
        verdict = "genuine" if result["genuine"] else "not genuine"
        return f"{file}: {verdict} (similarity {result['similarity']:.2f}{sure}{_where(result)})"
    if "references" in result:
        had = "had this picture already, and " if result["known"] else ""
        return f"{file}: {result['identity']} {had}has {result['references']} signatures{_where(result)}"
    return f"{file}: " + (", ".join(result["pictures"]) or "no signature found")


def _where(result: dict[str, Any]) -> str:
    """Which signature of a document it was, where there are several."""
    if result.get("signatures", 1) == 1:
        return ""
    which = "most alike" if "genuine" in result else "surest"
    return f"; page {result['page']}, the {which} of {result['signatures']}"


def _page_lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['file']}: {_answers(result)}"
    for page in result["pages"]:
        if len(result["pages"]) == 1:
            yield f"  {_marks(page['marks'])}"
        elif page["marks"]:
            yield f"  page {page['page']}: {_marks(page['marks'])}"


def _answers(result: dict[str, Any]) -> str:
    from signver.results import QUESTIONS

    said = [question for question in QUESTIONS if result[question]]
    unknown = [question for question in QUESTIONS if result[question] is None]
    note = f" (unknown to this detector: {', '.join(unknown)})" if unknown else ""
    missing = f"; missing: {', '.join(result['missing'])}" if result.get("missing") else ""
    return (", ".join(said) or "no mark found") + note + missing


def _marks(marks: Sequence[dict[str, Any]]) -> str:
    return ", ".join(_mark(mark) for mark in marks) or "nothing found"


def _mark(mark: dict[str, Any]) -> str:
    writer = mark.get("writer")
    of = "" if writer is None else f" of {writer['identity'] or 'nobody enrolled'}"
    return f"{mark['class']} {mark['score']:.2f}{of}"
