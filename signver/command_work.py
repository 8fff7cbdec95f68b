"""What each command of `signver` does with one file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from signver.errors import SignVerError
from signver.pictures import Pictures

if TYPE_CHECKING:
    from signver.pipeline import Pipeline
    from signver.results import Verification

# Each holds a page's pixels.
_MOST_AT_A_TIME = 8
# Cosine of two embeddings of one picture.
_SAME = 1 - 1e-6
# A crop of one signature is less high than that, whatever scanned it; a page is more at 90 dots an inch.
_PAGE_SIDE = 1000
# One file in; out comes what JSON shows. `answer: False` makes the exit code 3.
Work = Callable[[str], dict[str, Any]]


def check_options(options: argparse.Namespace) -> None:
    """Options that must come together, before anything is loaded.

    Raises:
      SignVerError: one is missing, or one would do nothing.
    """
    if "pages" in options and not options.pages and options.threshold is not None:
        genuine = "; for what counts as genuine there is --similarity" if "similarity" in options else ""
        raise SignVerError(
            f"{options.command}: --threshold is the score of marks on --pages, which was not given{genuine}."
        )
    if options.command == "enroll" and os.path.isfile(options.name):
        raise SignVerError(f"enroll: '{options.name}' is a file; the writer's name comes first.")
    reads_index = options.command in ("verify", "identify", "annotate", "writers") and options.index
    if reads_index and not os.path.exists(options.index):
        raise SignVerError(
            f"{options.index}: no such file; `signver enroll NAME PICTURES --index {options.index}` makes it."
        )
    if options.command == "clean" and not options.output:
        raise SignVerError("clean: name the folder for its pictures with --output FOLDER.")
    if options.command == "verify" and (
        bool(options.reference) == bool(options.name) or bool(options.index) != bool(options.name)
    ):
        raise SignVerError("verify: name the writer with --name and --index, or give --reference files.")


def make_pipeline(options: argparse.Namespace, threads: int) -> Pipeline:
    """The models that a command needs, loaded, from single files and from a bundle.

    Args:
      options: the command line's.
      threads: cores that one file may use; 0 for all.

    Raises:
      SignVerError: a model is missing or cannot be used.
    """
    from signver.bundle import Bundle, default_bundle
    from signver.pipeline import Pipeline

    needed = _needed(options)
    missing = [kind for kind in needed if not getattr(options, kind)]
    bundle = None
    if options.bundle:
        bundle = Bundle.load(options.bundle)
    elif missing:
        if default_bundle() is None:
            names = " ".join(f"--{kind} FILE" for kind in missing)
            raise SignVerError(f"no models ship with this installation; name --bundle FOLDER, or {names}.")
        bundle = Bundle.load()
    sources = {kind: _source(kind, options, bundle, threads) for kind in ("detector", "cleaner", "extractor")}
    pipeline = Pipeline(
        **sources,
        score_threshold=options.threshold if "threshold" in options else None,
        threshold=options.similarity if "similarity" in options else None,
    )
    for kind in needed:
        getattr(pipeline, kind)
    return pipeline


def shared_out(options: argparse.Namespace, files: int) -> tuple[int, int]:
    """How many files are worked on at a time, and the cores of each.

    One file on a core of its own each is faster than one after the other on all: to read a picture takes a
    third of a page's time, and no more than one core.
    """
    cores = options.threads or _cores()
    # Signatures are taken in their order, or an index would not be the same twice.
    jobs = 1 if options.command == "enroll" else min(files, cores, _MOST_AT_A_TIME)
    return jobs, options.threads if jobs == 1 else cores // jobs


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _needed(options: argparse.Namespace) -> list[str]:
    if options.command == "search":
        return ["detector", "extractor"]
    if options.command in ("detect", "annotate"):
        return ["detector"] + (["extractor"] if getattr(options, "index", None) else [])
    kinds = ["cleaner"] if options.command == "clean" else ["extractor"]
    return kinds + (["detector"] if options.pages else [])


def _source(kind: str, options: argparse.Namespace, bundle: Any, threads: int) -> Any:
    import importlib

    file = getattr(options, kind)
    if file:
        name = {"detector": "Detector", "cleaner": "Cleaner", "extractor": "MetricExtractor"}[kind]
        return lambda: getattr(importlib.import_module(f"signver.{kind}"), name)(threads).load(file)
    if bundle is not None and bundle.has(kind):
        return lambda: getattr(bundle, kind)(threads)
    return None


def detect(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """Where marks are."""

    def work(file: str) -> dict[str, Any]:
        document = pipeline.annotate(file)
        marks = [{"page": page.number} | mark.as_dict() for page in document.pages for mark in page.marks]
        return {"file": file, "marks": marks} | pictures.of_document(document)

    return work


def annotate(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """What is on a document."""
    if options.index:
        pipeline.load_index(options.index)

    def work(file: str) -> dict[str, Any]:
        document = pipeline.annotate(file, identify=bool(options.index))
        result = document.as_dict() | pictures.of_document(document)
        if options.require:
            result["missing"] = [question for question in options.require if not result[question]]
            result["answer"] = not result["missing"]
        return result

    return work


def clean(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """The ink of signatures."""

    def work(file: str) -> dict[str, Any]:
        stem = pictures.stem(file)
        if not options.pages:
            return {"file": file, "pictures": [pictures.save(pipeline.cleaner.clean(file), f"{stem}.png")]}
        crops = [crop for _, _, crop in pipeline.signatures(file)]
        inks = pipeline.cleaner.clean(crops)
        saved = [pictures.save(ink, f"{stem}-{number}.png") for number, ink in enumerate(inks, start=1)]
        return {"file": file, "pictures": saved}

    return work


def enroll(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """Takes a signature as a writer's own; the command writes the index when all are done."""
    from signver.index import check_name

    check_name(options.name)
    if os.path.exists(options.index):
        pipeline.load_index(options.index)

    def work(file: str) -> dict[str, Any]:
        where, signature = _signatures(options, pipeline, file)[0]
        embedding = pipeline.embed([signature], clean=options.clean)
        known = pipeline.index.references(options.name) if options.name in pipeline.index else embedding[:0]
        # The same picture twice says nothing more of a hand, and would count as two that are alike.
        again = bool(len(known)) and float((known @ embedding[0]).max()) > _SAME
        count = len(known) if again else pipeline.index.add(options.name, embedding)
        result = {"file": file, "identity": options.name, "references": count, "known": again} | where
        return result | pictures.of_ink(pipeline, signature, file, options.clean, options.name)

    return work


def verify(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """Whether a signature is genuine."""
    name = options.name or "reference"
    if options.index:
        pipeline.load_index(options.index)
        pipeline.index.references(name)
    else:
        references = [_reference(options, pipeline, file) for file in options.reference]
        pipeline.enroll(name, references, clean=options.clean)

    def work(file: str) -> dict[str, Any]:
        where, signature, found = _most_alike(options, pipeline, file, name)
        words = f"{'genuine' if found.genuine else 'not genuine'} {found.similarity:.2f}"
        picture = pictures.of_ink(pipeline, signature, file, options.clean, words)
        return {"file": file, "answer": found.genuine} | found.as_dict() | where | picture

    return work


def identify(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """Whose a signature is."""
    pipeline.load_index(options.index)

    def work(file: str) -> dict[str, Any]:
        where, signature = _signatures(options, pipeline, file)[0]
        found = pipeline.identify(signature, options.count, clean=options.clean)
        words = found.identity or "nobody enrolled"
        picture = pictures.of_ink(pipeline, signature, file, options.clean, words)
        return {"file": file, "answer": found.identity is not None} | found.as_dict() | where | picture

    return work


def search(options: argparse.Namespace, pipeline: Pipeline, pictures: Pictures) -> Work:
    """Which signatures of a document are of one hand."""
    query = pipeline.embed([options.signature], clean=options.clean)[0]

    def work(file: str) -> dict[str, Any]:
        compared = pipeline.compare(query, file)
        hits = [hit for hit in compared if hit.genuine]
        result = {"file": file, "answer": bool(hits), "hits": [hit.as_dict() for hit in hits]}
        result["most_alike"] = max((hit.similarity for hit in compared), default=None)
        return result | pictures.of_hits(file, hits)

    return work


def _signatures(
    options: argparse.Namespace, pipeline: Pipeline, file: str
) -> list[tuple[dict[str, Any], Any]]:
    """The file itself; or with --pages all signatures on it, the surest first, each with where it stands."""
    if not options.pages:
        _warn_of_a_page(file)
        return [({}, file)]
    found = sorted(pipeline.signatures(file), key=lambda each: -each[1].score)
    if not found:
        raise SignVerError(f"{file}: no signature found on this document.")
    return [
        ({"page": page, "box": mark.as_dict()["box"], "signatures": len(found)}, crop)
        for page, mark, crop in found
    ]


def _most_alike(
    options: argparse.Namespace, pipeline: Pipeline, file: str, name: str
) -> tuple[dict[str, Any], Any, Verification]:
    """Of a document's signatures the one most like a writer's: several people sign one page."""
    signatures = _signatures(options, pipeline, file)
    found = []
    for where, signature in signatures:
        try:
            found.append((where, signature, pipeline.verify(name, signature, clean=options.clean)))
        except SignVerError:
            if len(signatures) == 1:
                raise
            continue  # too little ink in this box
    if not found:
        raise SignVerError(f"{file}: none of its {len(signatures)} signatures has enough ink to compare.")
    return max(found, key=lambda each: each[2].similarity)


def _reference(options: argparse.Namespace, pipeline: Pipeline, file: str) -> Any:
    """With --pages the surest signature on it; a picture on which none is found is one itself."""
    found = pipeline.signatures(file) if options.pages else []
    return max(found, key=lambda each: each[1].score)[2] if found else file


def _warn_of_a_page(file: str) -> None:
    from PIL import Image

    try:
        with Image.open(file) as image:
            size = image.size
    except Exception:  # whoever reads it says what is wrong with it
        return
    if min(size) >= _PAGE_SIDE:
        print(
            f"warning: {file} has {size[0]}x{size[1]} pixels; if it is a page, add --pages.", file=sys.stderr
        )


def writers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Who is enrolled in an index, after those that --remove names are gone.

    Raises:
      SignVerError: the index cannot be read or written, or nobody of such a name is in it.
    """
    from signver.index import SignatureIndex

    index = SignatureIndex.load(options.index)
    for name in options.remove or ():
        index.remove(name)
    if options.remove:
        index.save(options.index)
    return [{"identity": name, "references": count} for name, count in sorted(index.counts().items())]


WORK = {
    "detect": detect,
    "annotate": annotate,
    "clean": clean,
    "enroll": enroll,
    "verify": verify,
    "identify": identify,
    "search": search,
}
