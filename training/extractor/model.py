"""The extractor's network: from normalised ink to an embedding of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from training.extractor.preprocessing import HEIGHT, WIDTH

layers = tf.keras.layers

# A short memory: evaluations must be right after a hundred steps too.
_MOMENTUM = 0.9
# The network's last map is cut into this many places: rows and columns.
_PLACES = (6, 12)
# Directions, and the side in pixels of the cells that they are counted in.
_DIRECTIONS, _CELL = 8, 4
# Coarse cells from place to place, and how far a place reaches, as a standard deviation in them.
_STRIDE, _REACH = 4, 2.5
# Directions that a stroke may leave a pixel in, and how far is looked, in pixels.
_RAYS, _FAR = 16, 9
# Below this share of ink a ray has left its stroke.
_LEFT = 0.55
# By how many coarse cells down and across two strokes may be apart whose directions are counted together.
_APART = ((0, 2), (2, 0), (2, 2), (2, -2), (0, 4), (4, 0), (4, 4), (4, -4))
# What is known, and how far each part counts, as a spread over signatures.
_KNOWN = {"histograms": 1.0, "hinges": 1.4, "pairs": 1.0, "shapes": 1.0}
# Signatures that kinds of shapes are found from.
_SHAPED = 1500
# How far the covariance within writers is drawn towards a round one: few writers do not tell all of it.
_ROUND = 1.0
# What new writers count for when an extractor is adapted to them: their middle, and their density.
_NEW_MIDDLE, _NEW_DENSITY = 0.5, 0.7
# What the residual blocks' share is multiplied by.
_LEARNED = 0.03


def extractor(filters: Sequence[int], embedding: int = 256, dropout: float = 0.2) -> tf.keras.Model:
    """Normalised ink, float32 [batch, 192, 384, 1], to float32 [batch, embedding] of length 1.

    Histograms of stroke directions by place (Dalal and Triggs 2005), hinges, how strokes bend whatever the
    place (Bulacu and Schomaker 2007), pairs of directions some way apart (Watanabe, Ito and Yokoi 2009), and
    kinds of small shapes (Jégou et al. 2010) tell writers apart, also those of sets never seen, before
    anything is learned. So the embedding starts as their principal components, in which what varies from one
    signature of a writer to the next counts for less (`start_from`), and learning moves it from there: a
    linear map that starts as none, and residual blocks (He et al. 2016) that see how strokes hang together
    and whose share starts at nothing. Where on the signature something stands matters, so their last map is
    not averaged away. `Density` has the last word.

    Args:
      filters: of the residual blocks; none for an embedding that is linear in what is known.
      embedding: its length.
      dropout: of the components and of the residual blocks' map.
    """
    image = tf.keras.Input((HEIGHT, WIDTH, 1), name="image")
    strokes = StrokeDirections(dtype="float32", name="strokes")(image)
    # Shapes gain from fine cells; what stands where, and what beside it, does not.
    coarse = layers.AveragePooling2D(2, dtype="float32", name="coarse")(strokes)
    known = [
        Histograms(dtype="float32", name="histograms")(strokes),
        Hinges(dtype="float32", name="hinges")(image),
        Pairs(dtype="float32", name="pairs")(coarse),
        Shapes(dtype="float32", name="shapes")(strokes),
    ]
    # The last coordinate is `Density`'s.
    length = embedding - 1
    units = layers.Dense(
        length, kernel_initializer="orthogonal", trainable=False, dtype="float32", name="components"
    )(layers.Concatenate(dtype="float32", name="known")(known))
    x = layers.Dense(length, use_bias=False, kernel_initializer="identity", dtype="float32")(
        layers.Dropout(dropout)(units)
    )
    if filters:
        x = layers.Add(dtype="float32")([x, _learned(coarse, filters, length, dropout)])
    x = layers.Dense(
        length, kernel_initializer="identity", trainable=False, dtype="float32", name="whitening"
    )(x)
    x = layers.UnitNormalization(dtype="float32")(x)
    return tf.keras.Model(image, Density(dtype="float32", name="embedding")(x), name="extractor")


def start_from(model: tf.keras.Model, images: np.ndarray, writers: np.ndarray, forged: np.ndarray) -> None:
    """Makes the embedding what some signatures suggest: principal components of what is known, whitened.

    Args:
      model: of `extractor`, not trained yet.
      images: uint8 [n, 192, 384], normalised ink; two at least.
      writers: int [n], who wrote each.
      forged: bool [n].
    """
    some = images[:: -(-len(images) // _SHAPED)]
    model.get_layer("shapes").learn(
        embed(tf.keras.Model(model.input, model.get_layer("strokes").output), some)
    )
    seen = embed(tf.keras.Model(model.input, model.get_layer("known").output), images).astype(np.float64)
    mean = seen.mean(axis=0)
    seen -= mean
    # The parts are spread unlike over signatures; what each counts is said here.
    share, start = np.ones(seen.shape[1]), 0
    for name, wanted in _KNOWN.items():
        part = slice(start, start + model.get_layer(name).output.shape[-1])
        share[part] = wanted / max(float(np.sqrt(np.mean(np.sum(seen[:, part] ** 2, axis=1)))), 1e-12)
        start = part.stop
    components, density = model.get_layer("components"), model.get_layer("embedding")
    axes = share[:, np.newaxis] * _principal_axes(seen * share, components.units)
    units = seen @ axes
    # What is learned starts from values around 1.
    size = _size(units)
    components.set_weights([axes / size, -mean @ axes / size])
    kernel = _whitening(units, writers, forged)
    kernel /= _size(units @ kernel / size)
    model.get_layer("whitening").set_weights([kernel, np.zeros(len(kernel))])
    density.set_weights([_second_moment(units @ kernel)])


def adapt(model: tf.keras.Model, images: np.ndarray, writers: np.ndarray, forged: np.ndarray) -> None:
    """Fits a trained model to new writers, in one step and without a gradient.

    What varies from one signature of theirs to the next counts for less, their middle moves halfway to the
    origin, and density learns of them. On writers of the same set that the model never saw this brings more
    than gradients did (docs/realism.md).

    Args:
      model, images, writers, forged: as for `start_from`, the model trained.
    """
    whitening, density = model.get_layer("whitening"), model.get_layer("embedding")
    kernel, bias = (weights.astype(np.float64) for weights in whitening.get_weights())
    seen = embed(tf.keras.Model(model.input, whitening.input), images).astype(np.float64) @ kernel + bias
    middle = _NEW_MIDDLE * seen.mean(axis=0)
    size = max(float(np.sqrt(np.mean(np.sum(seen**2, axis=1)))), 1e-12)
    turned = _whitening(seen - middle, writers, forged)
    turned /= _size((seen - middle) @ turned)
    whitening.set_weights([kernel @ turned, (bias - middle) @ turned])
    # What strangers were like, seen with new eyes.
    before = density.get_weights()[0].astype(np.float64) + np.outer(middle, middle) / size**2
    before = turned @ before @ turned
    before /= max(float(np.trace(before)), 1e-12)
    now = _second_moment((seen - middle) @ turned)
    density.set_weights([(1 - _NEW_DENSITY) * before + _NEW_DENSITY * now])


def _whitening(rows: np.ndarray, writers: np.ndarray, forged: np.ndarray) -> np.ndarray:
    """W ** -½, float64 [d, d], symmetric: W is the covariance of directions within writers.

    Hatch, Kajarekar and Stolcke 2006, "Within-class covariance normalization for SVM-based speaker
    recognition"; W is drawn towards a round covariance of the same size. Without two genuine signatures of a
    writer there is nothing to whiten.
    """
    unit = _unit(rows)
    within = np.zeros((rows.shape[1], rows.shape[1]))
    for writer in np.unique(writers):
        own = unit[(writers == writer) & ~forged]
        if len(own) > 1:
            away = own - own.mean(axis=0)
            within += away.T @ away * (len(own) / (len(own) - 1))
    size = np.trace(within) / len(within)
    if not size:
        return np.eye(len(within))
    values, axes = np.linalg.eigh(within / size)
    return (axes / np.sqrt(np.maximum(values, 0) + _ROUND)) @ axes.T


def _principal_axes(rows: np.ndarray, count: int) -> np.ndarray:
    """Those along which rows about 0 vary most, float64 [d, count]; 0 where they vary along fewer."""
    if len(rows) < rows.shape[1]:
        axes = np.linalg.svd(rows, full_matrices=False)[2][:count].T
    else:
        axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :count]
    # An eigenvector's sign is the library's whim.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.pad(axes, ((0, 0), (0, count - axes.shape[1])))


def _second_moment(rows: np.ndarray) -> np.ndarray:
    """Of directions: float64 [d, d], its trace 1."""
    unit = _unit(rows)
    return unit.T @ unit / len(unit)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Each of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _size(values: np.ndarray) -> float:
    """Root mean square, never nothing."""
    return max(float(np.sqrt(np.mean(values**2))), 1e-12)


def embed(model: tf.keras.Model, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """What a model makes of many signatures, float32 [n, d].

    Args:
      model: float32 [b, h, w, 1] in 0..1 to [b, d].
      images: uint8 [n, h, w].
      batch: signatures at a time.
    """
    parts = []
    for start in range(0, len(images), batch):
        pixels = images[start : start + batch, ..., np.newaxis].astype(np.float32) / 255
        parts.append(np.asarray(model(pixels, training=False)))
    return np.concatenate(parts)


class StrokeDirections(tf.keras.layers.Layer):
    """How much of a stroke's edge runs in each of eight directions, by 4×4 pixels; nothing in it is learned.

    Edges and not areas: a thicker pen leaves the sum as it is. A direction has no front: a stroke's two edges
    count as one.
    """

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """float32 [batch, h, w, 1] to float32 [batch, h / 4, w / 4, 8]."""
        # Derivatives at four pixels, along four ways each: their squares are all that the angle takes.
        slopes = tf.nn.conv2d(image, tf.constant(_derivatives()), 2, "SAME")
        squares = slopes * slopes
        # The doubled angle has no front; its cosine towards each direction, cubed, is a bin with soft edges.
        # No slices and no broadcasting, 1×1 convolutions instead: with those tf2onnx finds another order of
        # the same steps each time, and the file's bytes would change.
        angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
        towards = [np.cos(angles), -np.cos(angles), np.sin(angles), -np.sin(angles)]
        cosines = tf.nn.relu(tf.nn.conv2d(squares, _mixed(np.tile(towards, (4, 1)) / 4), 1, "SAME"))
        both = np.repeat([[1.0], [1.0], [0.0], [0.0]], _DIRECTIONS, axis=1)
        square = tf.nn.conv2d(squares, _mixed(np.tile(both, (4, 1)) / 4), 1, "SAME")
        square += _mixed([[1e-6] * _DIRECTIONS])
        # cosines³ / square^2.5: what a direction has of the slope, cubed, times the slope. Products, which
        # tf2onnx moves its transposes past.
        root = tf.math.rsqrt(square)
        share = cosines * root
        bins = share * share * share * (root * root)
        return tf.nn.avg_pool2d(bins, _CELL // 2, _CELL // 2, "VALID")


class Histograms(tf.keras.layers.Layer):
    """Square roots of the directions' histograms over overlapping places, as one vector of length 1."""

    def call(self, strokes: tf.Tensor) -> tf.Tensor:
        """float32 [batch, 48, 96, 8] to float32 [batch, 576], by row, column and direction."""
        radius = int(3 * _REACH)
        place = np.arange(-radius, radius + 1)
        bell = np.exp(-(place**2) / (2 * _REACH**2))
        bell /= bell.sum()
        # Down, and to coarse cells, in one; then across. Were the coarse map shared with `Pairs`, tf2onnx
        # would order the two differently from one conversion to the next.
        down, across = np.outer(np.repeat(bell, 2), [1, 1]) / 4, bell[np.newaxis]
        soft = strokes
        for kernel, step in ((down, 2), (across, 1)):
            kernel = np.repeat(kernel[..., np.newaxis, np.newaxis], _DIRECTIONS, axis=2).astype(np.float32)
            soft = tf.nn.depthwise_conv2d(soft, tf.constant(kernel), [1, step, step, 1], "SAME")
        roots = tf.sqrt(tf.nn.avg_pool2d(soft, _STRIDE, _STRIDE, "VALID") + _mixed([[1e-7] * _DIRECTIONS]))
        return tf.math.l2_normalize(tf.reshape(roots, [-1, int(np.prod(roots.shape[1:]))]), axis=1)


class Pairs(tf.keras.layers.Layer):
    """How often two directions stand some way apart: how a hand goes on, wherever on the signature.

    Watanabe, Ito and Yokoi 2009, "Co-occurrence histograms of oriented gradients for pedestrian detection",
    here over the whole picture and with soft bins.
    """

    def call(self, strokes: tf.Tensor) -> tf.Tensor:
        """float32 [batch, 24, 48, 8] to float32 [batch, 512] of length 1, by direction, other one, way."""
        far = max(max(abs(down), abs(across)) for down, across in _APART)
        # A convolution shifts, where slices would make the file differ from one conversion to the next.
        shift = np.zeros((2 * far + 1, 2 * far + 1, _DIRECTIONS, len(_APART)), np.float32)
        for way, (down, across) in enumerate(_APART):
            shift[far + down, far + across, :, way] = 1
        there = tf.nn.depthwise_conv2d(strokes, tf.constant(shift), [1, 1, 1, 1], "SAME")
        cells = strokes.shape[1] * strokes.shape[2]
        here = tf.reshape(strokes, [-1, cells, _DIRECTIONS])
        there = tf.reshape(there, [-1, cells, _DIRECTIONS * len(_APART)])
        counts = tf.reshape(
            tf.matmul(here, there, transpose_a=True), [-1, _DIRECTIONS * _DIRECTIONS * len(_APART)]
        )
        return tf.math.l2_normalize(tf.sqrt(counts + 1e-7), axis=1)


class Shapes(tf.keras.layers.Layer):
    """Which small shapes a hand writes, roughly where, and how they differ from the usual ones of their kind.

    Vectors of locally aggregated descriptors: Jégou, Douze, Schmid and Pérez 2010, "Aggregating local
    descriptors into a compact image representation"; for writers Christlein, Bernecker and Angelopoulou 2015,
    "Writer identification using VLAD encoded contour-Zernike moments". A shape is what nine cells hold; kinds
    are shared softly, and place counts among what makes a kind. `learn` finds the kinds.
    """

    _AXES, _KINDS = 40, 64
    # How many cells apart the nine cells of a shape are, in each of three rows.
    _STEP = 2
    # A picture's half height and half width, against the spread of shapes along an axis.
    _PLACE = 1.5
    # Shapes that kinds are found from, and how much of the usual ink a shape holds at least.
    _SAMPLE, _FEWEST = 60_000, 0.15

    def build(self, shape: tf.TensorShape) -> None:
        """Axes [72, 40] of shapes, their middle [40], how sharply kinds are parted, kinds [64, 42]."""
        shapes = {"axes": (9 * _DIRECTIONS, self._AXES), "middle": (self._AXES,), "sharpness": ()}
        initial = {"axes": "orthogonal", "middle": "zeros", "sharpness": "ones"}
        for name, size in shapes.items():
            setattr(self, name, self.add_weight(name, size, initializer=initial[name], trainable=False))
        kinds = (self._KINDS, self._AXES + 2)
        self.kinds = self.add_weight("kinds", kinds, initializer="random_normal", trainable=False)
        y, x = np.meshgrid(*(self._PLACE * (2 * np.arange(n) + 1 - n) / n for n in shape[1:3]), indexing="ij")
        self.places = np.stack([y, x], axis=-1).reshape(-1, 2).astype(np.float32)

    def call(self, strokes: tf.Tensor) -> tf.Tensor:
        """float32 [batch, 48, 96, 8] to float32 [batch, 2688] of length 1, by kind and axis."""
        soft, roots = self._softened(strokes)
        total = tf.nn.conv2d(soft, tf.ones([1, 1, _DIRECTIONS, 1]), 1, "SAME")
        axes = tf.reshape(self.axes, [3, 3, _DIRECTIONS, self._AXES])
        # The sum of a shape again for each axis, and below for each kind: broadcast, it would make the file's
        # bytes differ from one conversion to the next (`StrokeDirections`).
        size = tf.math.rsqrt(self._around(total, tf.ones([3, 3, 1, self._AXES])))
        values = self._around(roots, axes) * size
        cells = len(self.places)
        values = tf.reshape(tf.nn.bias_add(values, self.middle), [-1, cells, self._AXES])
        # Place counts beside the axes; the 1 behind it carries what each kind starts from, and counts.
        placed = np.column_stack([self.places, np.ones((cells, 1), np.float32)])
        none = tf.reshape(tf.nn.conv2d(total, tf.zeros([1, 1, 1, 3]), 1, "SAME"), [-1, cells, 3])
        values = tf.concat([values, none + placed], axis=2)
        # Squared distances to kinds, less what all kinds share.
        starts = -tf.reduce_sum(self.kinds**2, axis=1, keepdims=True)
        near = tf.matmul(values, tf.concat([2 * self.kinds, starts], axis=1), transpose_b=True)
        amount = self._around(total, tf.ones([3, 3, 1, self._KINDS]))
        amount = tf.reshape(amount, [-1, cells, self._KINDS])
        shares = tf.nn.softmax(self.sharpness * near) * amount
        sums = tf.matmul(shares, values, transpose_a=True)
        behind = self._AXES + 2
        count = tf.matmul(sums, tf.constant(np.eye(behind + 1, dtype=np.float32)[:, behind:]))
        away = tf.matmul(sums, tf.constant(np.eye(behind + 1, behind, dtype=np.float32)))
        away -= count * self.kinds
        away /= tf.sqrt(count + 1e-3)
        # A square root that keeps the sign, and does not blow up what is next to nothing.
        away /= tf.sqrt(tf.abs(away) + 1e-2)
        return tf.math.l2_normalize(tf.reshape(away, [-1, self._KINDS * (self._AXES + 2)]), axis=1)

    def learn(self, strokes: np.ndarray) -> None:
        """Finds axes and kinds: principal components and k-means of the shapes of some pictures.

        Args:
          strokes: float32 [n, 48, 96, 8]. Too few shapes for all kinds leave the layer as it is.
        """
        rng, parts = np.random.default_rng(0), []
        pictures = 100
        for start in range(0, len(strokes), pictures):
            soft, roots = (
                tf.image.extract_patches(
                    values, [1, 3, 3, 1], [1, 1, 1, 1], [1, self._STEP, self._STEP, 1], "SAME"
                ).numpy()
                for values in self._softened(tf.constant(strokes[start : start + pictures]))
            )
            amount = soft.sum(axis=-1).ravel()
            chosen = rng.permutation(np.flatnonzero(amount > max(self._FEWEST * amount.max(), 1e-3)))
            chosen = chosen[: self._SAMPLE * pictures // max(len(strokes), pictures)]
            shapes = roots.reshape(len(amount), -1)[chosen] / np.sqrt(amount[chosen, np.newaxis])
            parts.append(np.column_stack([shapes, self.places[chosen % len(self.places)]]))
        found = np.concatenate(parts).astype(np.float64)
        if len(found) < 10 * self._KINDS:
            return
        shapes, places = found[:, :-2] - found[:, :-2].mean(axis=0), found[:, -2:]
        values, axes = np.linalg.eigh(shapes.T @ shapes / len(shapes))
        # Halfway to axes that count alike.
        axes = axes[:, : -self._AXES - 1 : -1] / np.maximum(values[: -self._AXES - 1 : -1], 1e-9) ** 0.25
        axes /= _size(shapes @ axes)
        rows = np.column_stack([shapes @ axes, places])
        kinds, _ = kmeans2(rows, self._KINDS, iter=25, minit="++", seed=0)
        away = np.sort(cdist(rows[:: max(1, len(rows) // 5000)], kinds, "sqeuclidean"), axis=1)
        sharpness = 2 / max(float(np.mean(away[:, 1] - away[:, 0])), 1e-9)
        self.set_weights([axes, -found[:, :-2].mean(axis=0) @ axes, sharpness, kinds])

    def _softened(self, strokes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Amounts of directions around each cell, float32 [batch, 48, 96, 8], and their square roots."""
        soft = tf.nn.avg_pool2d(strokes, 2, 1, "SAME") + _mixed([[1e-6] * _DIRECTIONS])
        return soft, tf.sqrt(soft)

    def _around(self, cells: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(cells, kernel, 1, "SAME", dilations=self._STEP)


class Hinges(tf.keras.layers.Layer):
    """How often ink goes on from a pixel in two directions at once: how strokes bend, wherever they stand.

    Bulacu and Schomaker 2007, "Text-independent writer identification and verification using textural and
    allographic features", count hinges of two pieces of a contour. Here rays from pixels of ink say by how
    much the ink goes on in each of sixteen directions, and products of two of them are summed over the
    picture: a matrix product, which any runtime has. Place is left to `Histograms`.
    """

    # From pixel to pixel that rays leave: each second one down and across tells as much as all.
    _STEP = 2
    # What a ray that leaves paper loses, where one that stays in ink has 1.
    _PAPER = 2.0

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """float32 [batch, h, w, 1] to float32 [batch, 120] of length 1, by pairs of directions."""
        # From half on a pixel is ink; relu6 of 6 x is x cut at one, six times. As rows: ONNX Runtime takes
        # pixels of one channel one by one.
        pixels = tf.reshape(image, [-1, image.shape[1] * image.shape[2]])
        ink = tf.reshape(tf.nn.relu6(12.0 * pixels), [-1, *image.shape[1:]])
        # Rays leave ink only: what the pixel itself lacks of it is taken off all of them.
        kernel = _rays() / (1 - _LEFT)
        kernel[_FAR, _FAR] += self._PAPER
        rays = tf.nn.conv2d(ink, tf.constant(kernel / 6), self._STEP, "SAME")
        bias = tf.constant([-_LEFT / (1 - _LEFT) - self._PAPER] * _RAYS)
        ahead = tf.nn.relu(tf.nn.bias_add(rays, bias))
        ahead = tf.reshape(ahead * ahead, [-1, ahead.shape[1] * ahead.shape[2], _RAYS])
        products = tf.reshape(tf.matmul(ahead, ahead, transpose_a=True), [-1, _RAYS * _RAYS])
        # A direction with itself only says how much of it there is.
        first, second = np.triu_indices(_RAYS, 1)
        places = (first * _RAYS + second).astype(np.int32)  # Gaudi has no int64
        pairs = tf.gather(products, tf.constant(places), axis=1)
        return tf.math.l2_normalize(tf.sqrt(pairs + 3.6e-6), axis=1)


class Density(tf.keras.layers.Layer):
    """One more coordinate, by which embeddings that are like many others are compared more strictly.

    A plain signature is like many a stranger's, an odd one like none, so one threshold of the cosine does not
    suit both. Distances are made local, as in self-tuning clustering (Zelnik-Manor and Perona 2004), but with
    no neighbours to search: over strangers the cosine with e scatters by s = sqrt(eᵀ C e), C being the mean
    of e eᵀ, and one in forty comes nearer than 2 s. Scaled to a = ½ (1 - 2 s)^-¾ and made whole by the
    coordinate sqrt(1 - a²), vectors of length 1 give a cosine again.
    """

    _KEEP = 0.99

    def build(self, shape: tf.TensorShape) -> None:
        """C, float32 [d, d], a moving mean that training keeps, as batch normalisation keeps its own."""
        self.spread = self.add_weight(
            name="spread", shape=[shape[-1], shape[-1]], initializer="zeros", trainable=False
        )

    def call(self, embedding: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """float32 [batch, d] of length 1 to float32 [batch, d + 1] of length 1."""
        if training:
            count = tf.cast(tf.shape(embedding)[0], tf.float32)
            found = tf.stop_gradient(tf.matmul(embedding, embedding, transpose_a=True) / count)
            self.spread.assign(self._KEEP * self.spread + (1 - self._KEEP) * found)
        square = tf.reduce_sum(tf.matmul(embedding, self.spread) * embedding, axis=1, keepdims=True)
        near = tf.minimum(2.0 * tf.sqrt(tf.maximum(square, 1e-12)), 0.8)
        share = tf.minimum(0.5 * tf.exp(-0.75 * tf.math.log(1.0 - near)), 0.98)
        return tf.concat([share * embedding, tf.sqrt(1.0 - share * share)], axis=1)


def _mixed(weights: Any) -> tf.Tensor:
    """A 1×1 convolution's kernel, float32 [1, 1, in, out]."""
    return tf.constant(np.asarray(weights, np.float32)[np.newaxis, np.newaxis])


def _derivatives() -> np.ndarray:
    """Derivatives of a Gaussian of one pixel at each of 2×2 pixels: float32 [8, 8, 1, 16].

    By pixel, and then across, down, and along both diagonals.
    """
    place = np.arange(-3, 4)
    bell = np.exp(-(place**2) / 2) / np.exp(-(place**2) / 2).sum()
    slope = place * bell
    across, down = np.outer(bell, slope), np.outer(slope, bell)
    diagonals = [(across + down) / np.sqrt(2), (across - down) / np.sqrt(2)]
    ways = [across, down, *diagonals]
    kernel = [np.pad(way, ((y, 1 - y), (x, 1 - x))) for y in (0, 1) for x in (0, 1) for way in ways]
    return np.stack(kernel, axis=-1)[:, :, np.newaxis].astype(np.float32)


def _rays() -> np.ndarray:
    """The mean over the way from the middle to `_FAR` pixels in each direction: float32 [19, 19, 1, 16]."""
    side = 2 * _FAR + 1
    kernel = np.zeros((side, side, _RAYS))
    for ray, angle in enumerate(2 * np.pi * np.arange(_RAYS) / _RAYS):
        for distance in np.linspace(1, _FAR, 2 * _FAR):
            y, x = _FAR + distance * np.sin(angle), _FAR + distance * np.cos(angle)
            # A place between pixels is shared by the four around it.
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if row < side and column < side:
                        kernel[row, column, ray] += max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
    return (kernel / kernel.sum(axis=(0, 1)))[:, :, np.newaxis].astype(np.float32)


def _learned(strokes: tf.Tensor, filters: Sequence[int], length: int, dropout: float) -> tf.Tensor:
    """What residual blocks add to the histograms, float32 [batch, length]; nothing at first."""
    x = _normalised(layers.Conv2D(filters[0], 3, padding="same", use_bias=False)(strokes))
    for level, count in enumerate(filters[1:]):
        x = _block(x, count, 2 if level else 1)
    x = layers.Conv2D(32, 1, use_bias=False)(_places(x))
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3)(x)
    x = layers.Dropout(dropout)(layers.Flatten()(layers.ReLU()(x)))
    x = layers.Dense(length, use_bias=False, kernel_initializer="zeros", dtype="float32")(x)
    # Thousands of values feed each of these: a step of the optimizer would throw everything over.
    return layers.Rescaling(_LEARNED, dtype="float32")(x)


def _places(x: tf.Tensor) -> tf.Tensor:
    """A map averaged to `_PLACES`."""
    size = (x.shape[1] // _PLACES[0], x.shape[2] // _PLACES[1])
    return x if size == (1, 1) else layers.AveragePooling2D(size)(x)


def _block(x: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
    short = x
    if stride > 1 or x.shape[-1] != filters:
        short = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
        short = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3)(
            layers.Conv2D(filters, 1, use_bias=False)(short)
        )
    x = _normalised(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x))
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    # Starts as if the block were not there.
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3, gamma_initializer="zeros")(x)
    return layers.ReLU()(layers.Add()([x, short]))


def _normalised(x: tf.Tensor) -> tf.Tensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3)(x))
