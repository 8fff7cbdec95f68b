"""Batches of P writers × (K genuine + F forged) signatures, each a function of (seed, position) alone.

Position p of a run is one visit to a writer: writers come in the order of `records.epoch_order`, and each
visit takes the writer's next K genuine and F forged signatures, again in shuffled rounds. So every writer
and every signature has its turn, a resumed run goes on where it stopped, and ranks divide the writers of a
step among them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import tensorflow as tf

from training.data import records
from training.data.signatures import FORGED
from training.errors import UserError
from training.extractor.preprocessing import HEIGHT, WIDTH, normalise, scales

# Grey uint8 [h, w] of one signature to the uint8 pixels that a network sees.
Prepare = Callable[[np.ndarray], np.ndarray]

_FEWEST_GENUINE = 2
_INK = 40
# A pixel of a picture of this height is the measure of pens and specks.
_UNITS = 96
# Free border, in pixels, where the size is kept.
_MARGIN = 4


@dataclasses.dataclass(frozen=True)
class SignatureSet:
    """All signatures of a data set, normalised.

    Attributes:
      images: uint8 [n, 192, 384], 255 where all is ink; another size where another network asks for it.
      writers: int32 [n], index into `names`.
      forged: bool [n]; a forgery stands under the writer that it imitates.
      names: the writers.
      files: file name of each signature.
    """

    images: np.ndarray
    writers: np.ndarray
    forged: np.ndarray
    names: tuple[str, ...]
    files: tuple[str, ...]

    def of(self, writer: int, forged: bool) -> np.ndarray:
        """Numbers of a writer's genuine or forged signatures."""
        return np.flatnonzero((self.writers == writer) & (self.forged == forged))


@dataclasses.dataclass
class Jitter:
    """How far a signature is changed in training, in ways that say nothing about the hand.

    Attributes:
      rotation: standard deviation, degrees.
      shear: standard deviation, as a slope.
      scale: largest change of size and of width against height, as a fraction.
      shift: largest shift, as a fraction of the picture.
      fit: standard deviation of the size after the fit into the picture, as a fraction.
      stroke: probability of a thicker or thinner pen.
      blur: probability of a coarser scan.
      dirt: probability of specks and of a piece cut out.
      refit: fits the changed ink into the picture again, as `preprocessing.normalise` does; false where the
        network's preprocessing keeps the size.
    """

    rotation: float = 1.0
    shear: float = 0.02
    scale: float = 0.04
    shift: float = 0.01
    fit: float = 0.02
    stroke: float = 0.7
    blur: float = 0.4
    dirt: float = 0.1
    refit: bool = True


@dataclasses.dataclass
class Persona:
    """How far a writer is changed into another one: the same change for all signatures of a visit.

    Genuine signatures and their forgeries are changed alike, so what tells them apart stays, and few writers
    become many. All zero: writers as they are.

    Attributes:
      mirror: probability of a mirror image.
      rotation: standard deviation, degrees.
      slant: standard deviation of the shear, as a slope.
      stretch: largest change of width against height, as a logarithm.
      bend: standard deviation of a smooth bending, as a fraction of the height.
    """

    mirror: float = 0.5
    rotation: float = 5.0
    slant: float = 0.25
    stretch: float = 0.25
    bend: float = 0.04


def load_set(input_path: str, prepare: Prepare | None = None) -> SignatureSet:
    """Decodes and normalises every signature of a data set once; 74 kB of memory each.

    Args:
      input_path: the set.
      prepare: grey uint8 [h, w] to uint8 pixels of one size, all 0 without ink; `normalise` by default.

    Raises:
      UserError: no data, or a record without ink.
    """
    from training.data import tfrecord

    encoded, writers, forged, files = [], [], [], []
    for page in tfrecord.read_pages(input_path):
        encoded.append(page.image)
        writers.append(page.document)
        forged.append(any(box.label == FORGED for box in page.boxes))
        files.append(page.name)

    def decode(image: tf.Tensor) -> tf.Tensor:
        grey = tf.io.decode_image(image, channels=1, expand_animations=False)[..., 0]
        if prepare is None:
            return tf.cast(tf.round(normalise(grey) * 255), tf.uint8)
        return tf.numpy_function(prepare, [grey], tf.uint8)

    data = tf.data.Dataset.from_tensor_slices(encoded).map(decode, tf.data.AUTOTUNE)
    images = np.stack(list(data.as_numpy_iterator()))
    for number in np.flatnonzero(~images.any(axis=(1, 2))):
        raise UserError(
            f"{input_path}: {files[number]} has no ink on it; run `python -m training.data check`."
        )
    names = tuple(sorted(set(writers)))
    place = {name: number for number, name in enumerate(names)}
    return SignatureSet(
        images, np.array([place[w] for w in writers], np.int32), np.array(forged, bool), names, tuple(files)
    )


def visits(
    signatures: SignatureSet, genuine: int, forged: int, seed: int, positions: Iterator[int]
) -> Iterator[np.ndarray]:
    """Numbers of the signatures of each visit, int64 [genuine + forged].

    A writer without forgeries gets genuine signatures of other writers instead: a batch has one shape.

    Raises:
      UserError: fewer than two writers with two genuine signatures.
    """
    own = [signatures.of(writer, False) for writer in range(len(signatures.names))]
    imitated = [signatures.of(writer, True) for writer in range(len(signatures.names))]
    usable = [writer for writer, found in enumerate(own) if len(found) >= _FEWEST_GENUINE]
    if len(usable) < 2:
        raise UserError(
            f"{len(usable)} writers with at least {_FEWEST_GENUINE} genuine signatures; training needs two. "
            "A set of single signatures has one writer each: name them with `convert signatures "
            "--document_pattern`."
        )
    for position in positions:
        turn, place = divmod(position, len(usable))
        writer = usable[records.epoch_order(len(usable), seed, turn)[place]]
        others = own[usable[(usable.index(writer) + 1 + turn) % len(usable)]]
        skilled = imitated[writer] if len(imitated[writer]) else others
        yield np.concatenate(
            [
                _next(own[writer], turn, genuine, (seed, writer, 0)),
                _next(skilled, turn, forged, (seed, writer, 1)),
            ]
        )


def _next(found: np.ndarray, turn: int, count: int, key: tuple[int, int, int]) -> np.ndarray:
    """The `count` signatures of a writer's turn, in rounds through all of them."""
    numbers = range(turn * count, (turn + 1) * count)
    mixed = (key[0] * 1_000_003 + key[1] * 2 + key[2]) & 0xFFFFFFFFFFFFFFFF
    return np.array(
        [found[records.epoch_order(len(found), mixed, n // len(found))[n % len(found)]] for n in numbers],
        np.int64,
    )


def training_batches(
    signatures: SignatureSet,
    genuine: int,
    forged: int,
    jitter: Jitter,
    persona: Persona,
    seed: int,
    batch: int,
    rank: int = 0,
    size: int = 1,
    first_step: int = 0,
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """Endless batches of one rank: images uint8 [b, 192, 384, 1], (writers int32 [b], forged int32 [b]).

    Raises:
      UserError: a batch that the writers of a step or the ranks do not divide.
    """
    each = genuine + forged
    if batch % (each * size):
        raise UserError(
            f"global_batch_size {batch} is not divisible by {size} processes × {each} signatures a writer; "
            f"take {max(1, batch // (each * size)) * each * size}."
        )
    here = batch // each // size
    positions, visited = itertools.tee(records.training_positions(batch // each, rank, size, first_step))
    source = zip(visits(signatures, genuine, forged, seed, visited), positions, strict=False)
    while True:
        images = np.empty((here * each, *signatures.images.shape[1:], 1), np.uint8)
        numbers = np.empty(here * each, np.int64)
        for visit in range(here):
            chosen, position = next(source)
            look = draw_look(persona, np.random.default_rng([seed, position]), signatures.images.shape[1:])
            for place, number in enumerate(chosen):
                slot = visit * each + place
                numbers[slot] = number
                rng = np.random.default_rng([seed, position, place])
                images[slot, ..., 0] = change(signatures.images[number], jitter, rng, look)
        yield images, (signatures.writers[numbers], signatures.forged[numbers].astype(np.int32))


@dataclasses.dataclass(frozen=True)
class Look:
    """One draw of `Persona`: what all signatures of a visit have in common.

    Attributes:
      matrix: float64 [2, 2].
      bend: float32 [height, width, 2], pixels by which each point is moved.
    """

    matrix: np.ndarray
    bend: np.ndarray


def draw_look(persona: Persona, rng: np.random.Generator, shape: tuple[int, ...] = (HEIGHT, WIDTH)) -> Look:
    """Makes another writer out of the next one, for pictures of this height and width."""
    angle, slope = np.deg2rad(rng.normal(0, persona.rotation)), rng.normal(0, persona.slant)
    stretch = np.exp(rng.uniform(-persona.stretch, persona.stretch))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[1, slope], [0, 1]]) @ np.diag([stretch, 1 / stretch])
    if rng.random() < persona.mirror:
        matrix = matrix @ np.diag([-1.0, 1.0])
    coarse = rng.normal(0, persona.bend * shape[0], (4, 7, 2)).astype(np.float32)
    return Look(matrix, cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def change(
    image: np.ndarray, jitter: Jitter, rng: np.random.Generator, look: Look | None = None
) -> np.ndarray:
    """A signature as the hand might have left it with another pen and scanner: uint8, same shape."""
    result = _move(image, jitter, rng, look)
    height, width = image.shape
    # Pens and scans change alike, however large the network's pictures are.
    unit = max(1, height // _UNITS)
    if rng.random() < jitter.stroke:
        shape = cv2.MORPH_CROSS if rng.random() < 0.5 else cv2.MORPH_RECT
        kernel = cv2.getStructuringElement(shape, (2 * unit + 1, 2 * unit + 1))
        thicker = rng.random() < 0.6
        other = cv2.dilate(result, kernel) if thicker else cv2.erode(result, kernel)
        # A thin stroke eroded in full would be gone.
        share = rng.uniform(0.2, 1.0 if thicker else 0.6)
        result = cv2.addWeighted(other, share, result, 1 - share, 0)
    if rng.random() < jitter.blur:
        result = cv2.GaussianBlur(result, (0, 0), unit * rng.uniform(0.4, 0.9))
    if rng.random() < jitter.dirt:
        count = int(rng.integers(1, 12))
        result[rng.integers(0, height, count), rng.integers(0, width, count)] = rng.integers(80, 256, count)
    if rng.random() < jitter.dirt:
        top, left = int(rng.integers(0, height - 8 * unit)), int(rng.integers(0, width - 12 * unit))
        cut = unit * rng.integers((4, 6), (16, 24))
        result[top : top + int(cut[0]), left : left + int(cut[1])] = 0
    return cv2.convertScaleAbs(result, alpha=rng.uniform(0.75, 1.35))


def _move(image: np.ndarray, jitter: Jitter, rng: np.random.Generator, look: Look | None) -> np.ndarray:
    """Changes the shape and fits the ink into the picture again, as `preprocessing.normalise` would."""
    angle, slope = np.deg2rad(rng.normal(0, jitter.rotation)), rng.normal(0, jitter.shear)
    across, down = 1 + rng.uniform(-jitter.scale, jitter.scale, 2)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[1, slope], [0, 1]]) @ np.diag([across, down])
    if look is not None:
        matrix = matrix @ look.matrix
    size = np.array(image.shape[::-1])
    # Strokes of a thin pen in a large scan are faint once they are reduced.
    rows, columns = np.nonzero(image > min(_INK, int(image.max()) // 2))
    if not rows.size:
        return image.copy()
    thinned = max(1, rows.size // 512)
    moved = np.column_stack([columns, rows])[::thinned] @ matrix.T
    centre = size / 2 + rng.uniform(-jitter.shift, jitter.shift, 2) * size
    if jitter.refit:
        middle = moved.mean(axis=0)
        down, across = scales(*np.maximum(moved.std(axis=0), 2.0)[::-1])
        fit = np.diag([across, down]) * np.exp(rng.normal(0, jitter.fit))
    else:
        low, high = moved.min(axis=0), moved.max(axis=0)
        middle = (low + high) / 2
        room = np.min((size - 2 * _MARGIN) / np.maximum(high - low, 1))
        fit = np.eye(2) * min(room, 1.0) * (1 - abs(rng.normal(0, jitter.fit)))
    affine = np.column_stack([fit @ matrix, centre - fit @ middle])
    if look is None:
        return cv2.warpAffine(image, affine, image.shape[::-1], flags=cv2.INTER_LINEAR)
    back = cv2.invertAffineTransform(affine).astype(np.float32)
    target = _grid(*image.shape) + look.bend
    source = target @ back[:, :2].T + back[:, 2]
    return cv2.remap(image, source, None, cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> np.ndarray:
    """Column and row of each pixel, float32 [height, width, 2]."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
