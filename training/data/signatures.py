"""Sets of single signatures, one image each: CEDAR, WRITER/genuine|forged, the Kaggle layout, a folder.

A signature becomes a `Page` of its own: its document is its writer, so no split divides a writer, and
its one box is the extent of its ink, labelled genuine or forged. Paper is whitened: in raw CEDAR its
grey alone tells genuine from forged (AUC 1.000), and whatever learns from that learns nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import pathlib
import re
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from PIL import Image

from training.data import formats
from training.data.page import Box, Page
from training.data.splits import NEUTRAL_FOLDERS, document_of
from training.errors import UserError

GENUINE, FORGED = 1, 2
CLASSES = {GENUINE: "genuine", FORGED: "forged"}
# Synthetic writers that a set may have; those numbered from here on are in none.
MOST_WRITERS = 400_000
# The signers that SignVer's own training script holds out of CEDAR.
CEDAR_HELD_OUT = ("2", "5", "6", "15", "19", "22", "30", "34", "48", "51")

_FORGERS = 4

_CEDAR = re.compile(r"(original|forgeries)_(\d+)_(\d+)", re.IGNORECASE)
_GENUINE_FOLDERS = ("genuine", "original", "real")
_FORGED_FOLDERS = ("forged", "forgeries", "forgery", "forg")


@dataclasses.dataclass(frozen=True)
class SignatureFile:
    """An image of one signature that is not read yet.

    Attributes:
      path: the image.
      name: unique in its source.
      document: its writer.
      label: GENUINE or FORGED.
    """

    path: pathlib.Path
    name: str
    document: str
    label: int

    def load(self, max_side: int = 0) -> Page:
        """Reads, whitens and boxes the signature; the result is a grey PNG.

        Raises:
          UserError: no image, or one without ink.
        """
        try:
            encoded, _, _ = formats.recode(self.path.read_bytes(), max_side)
            with Image.open(io.BytesIO(encoded)) as image:
                grey = whiten(np.asarray(image.convert("L")))
        except formats.UNREADABLE as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{self.path}: cannot read this image ({reason}).") from error
        try:
            return to_page(grey, self.name, self.document, self.label)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}; take it out of the set.") from error


def to_page(grey: np.ndarray, name: str, writer: str, label: int) -> Page:
    """A signature as a page.

    Args:
      grey: uint8 [h, w], dark ink on white (255) paper.

    Raises:
      ValueError: no pixel is darker than the paper.
    """
    rows, columns = np.flatnonzero((grey < 255).any(axis=1)), np.flatnonzero((grey < 255).any(axis=0))
    if not rows.size:
        raise ValueError("no ink on it")
    height, width = grey.shape
    box = Box(
        float(rows[0] / height), float(columns[0] / width),
        float((rows[-1] + 1) / height), float((columns[-1] + 1) / width), label,
    )  # fmt: skip
    encoded = cv2.imencode(".png", grey)[1].tobytes()
    return Page(name, writer, encoded, height, width, (box,))


def whiten(grey: np.ndarray) -> np.ndarray:
    """Paper to 255, ink as it is: what is brighter than Otsu's threshold is paper (uint8 [h, w]).

    Otsu 1979, "A threshold selection method from gray-level histograms"; the ready CEDAR copies in
    circulation were made this way.
    """
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.where(grey > level, np.uint8(255), grey)


def read_signatures(folder: pathlib.Path, document_pattern: str | None = None) -> list[SignatureFile]:
    """Finds the signatures below a folder, whatever its layout.

    - `…/original_S_N.png`, `…/forgeries_S_N.png` (CEDAR);
    - `WRITER/genuine/*`, `WRITER/forged/*` (SigComp and others);
    - `WRITER/*`, `WRITER_forg/*`, also under train/ and test/ (the Kaggle Siamese set); writers need no
      forgeries;
    - any other images, all in one folder: genuine, the writer by the file name without its page number.

    Args:
      folder: the set.
      document_pattern: regular expression; its first group is an image's writer. Overrides the layout's.

    Raises:
      UserError: no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in formats.IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: no image here nor below.")
    parents = {path.parent for path in paths if path.parent.name.lower() not in NEUTRAL_FOLDERS}
    several = len(parents - {folder}) > 1
    files = []
    for path in paths:
        writer, label = _writer_and_label(path, several and path.parent in parents - {folder})
        name = path.relative_to(folder).as_posix()
        if document_pattern:
            writer = document_of(name, document_pattern)
        files.append(SignatureFile(path, name, writer, label))
    return files


def held_out(
    files: Iterable[SignatureFile], writers: Iterable[str]
) -> tuple[dict[str, list[SignatureFile]], list[str]]:
    """The splits in which `writers` are held out, and those of them that are not in the set."""
    wanted = set(writers)
    splits: dict[str, list[SignatureFile]] = {"train": [], "eval": []}
    for file in files:
        splits["eval" if file.document in wanted else "train"].append(file)
    found = {file.document for file in splits["eval"]}
    return splits, sorted(wanted - found)


def is_cedar(files: Iterable[SignatureFile]) -> bool:
    """Whether the file names are CEDAR's."""
    return all(_CEDAR.fullmatch(file.path.stem) for file in files)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `convert signatures` beyond those of every format."""
    parser.add_argument("--input", type=pathlib.Path, required=True, help="folder of images, any layout")
    parser.add_argument(
        "--eval_writers",
        type=lambda text: [writer.strip() for writer in text.split(",")],
        help="writers to hold out, e.g. 2,5,6; for CEDAR by default the ten that SignVer holds out",
    )


def synthesize(seed: int, writer: int, number: int, label: int) -> Page:
    """One signature of a synthetic writer, or a skilled forgery of it; the same arguments, the same bytes.

    Raises:
      ValueError: an unknown label.
    """
    from training.data.synthetic import handwriting

    if label not in CLASSES:
        raise ValueError(f"label {label} is neither genuine nor forged")
    rng = np.random.default_rng([seed, writer, number, label])
    person = handwriting.Writer(seed * 1_000_003 + writer)
    hand = person.hand
    drawn = person.signature(rng)
    if label == FORGED:
        # A forger's number is beyond every writer's, so that nobody forges with a hand in the set. Each
        # writer has a few, as in the sets that were collected.
        place = (writer * 31 + int(rng.integers(_FORGERS))) % 100_000
        forger = handwriting.Writer(seed * 1_000_003 + 500_000 + place)
        hand, drawn = forger.hand, forger.forge(person, rng)
    moving = drawn.points[drawn.pen_down]
    extent = np.maximum(moving.max(axis=0) - moving.min(axis=0), 0.1)
    scale = float(min(rng.uniform(380, 620) / extent[0], rng.uniform(160, 300) / extent[1]))
    # Whoever signs, the pen is the one at hand: its width must not tell forgers from owners. Against the
    # signature's size the median is that of CEDAR and SigComp Dutch.
    pen = float(np.clip(np.exp(rng.normal(1.12, 0.35)), 1.7, 8.0))
    coverage = handwriting.render(drawn, hand, scale, pen, margin=12)
    strength = rng.uniform(0.65, 0.98) * _ink_texture(coverage.shape, rng)
    grey = np.rint(255 * (1 - coverage * strength)).astype(np.uint8)
    name = f"{writer:05d}-{CLASSES[label]}-{number:03d}.png"
    return to_page(whiten(grey), name, f"{writer:05d}", label)


def write_samples(folder: pathlib.Path, writers: int, genuine: int = 4, forged: int = 2) -> str:
    """Writes a small set of synthetic signatures below `folder`; returns its input_path."""
    from training.data.tfrecord import write_dataset

    pages = [
        synthesize(0, writer, number, label)
        for writer in range(writers)
        for label, count in ((GENUINE, genuine), (FORGED, forged))
        for number in range(count)
    ]
    output = folder / "signatures"
    write_dataset(output, {"train": pages}, CLASSES, shards=1, source="synthetic signatures", seed=0)
    return str(output / "train*")


def _ink_texture(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Uneven flow and paper grain: float32 [h, w] around 1."""
    flow = rng.normal(1, 0.1, (5, 9)).astype(np.float32)
    # A dry ball pen leaves gaps once the scan is made black and white.
    dry = rng.random() < 0.25
    grain = rng.normal(0, rng.uniform(0.4, 1.0) if dry else rng.uniform(0.02, 0.12), shape).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.8, 1.4))
    least = 0.15 if dry else 0.55
    return np.clip(cv2.resize(flow, shape[::-1], interpolation=cv2.INTER_CUBIC) + grain, least, 1.02)


def _writer_and_label(path: pathlib.Path, in_own_folder: bool) -> tuple[str, int]:
    """Args: in_own_folder: where nothing else says who signed, the folder does and not the file's name."""
    cedar = _CEDAR.fullmatch(path.stem)
    if cedar:
        return cedar[2], GENUINE if cedar[1].lower() == "original" else FORGED
    parent = path.parent.name
    for label, names in ((GENUINE, _GENUINE_FOLDERS), (FORGED, _FORGED_FOLDERS)):
        if parent.lower() in names:
            return path.parent.parent.name, label
    if parent.lower().endswith("_forg"):
        return parent[: -len("_forg")], FORGED
    return parent if in_own_folder else document_of(path.name), GENUINE


def inked(pages: Iterable[Page], margin: int = 2) -> Iterator[np.ndarray]:
    """Each signature cut to its ink: uint8 [h, w], dark on white.

    Args:
      pages: of a signature set; of a page with several boxes each gives one image.
      margin: paper pixels around.
    """
    for page in pages:
        grey = cv2.imdecode(np.frombuffer(page.image, np.uint8), cv2.IMREAD_GRAYSCALE)
        for box in page.boxes:
            top, left = int(box.ymin * page.height), int(box.xmin * page.width)
            bottom, right = round(box.ymax * page.height), round(box.xmax * page.width)
            yield np.pad(grey[top:bottom, left:right], margin, constant_values=255)
