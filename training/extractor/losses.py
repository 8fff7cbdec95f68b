"""Metric losses over a batch of P writers × (genuine + forged), with masks and fixed shapes throughout.

Embeddings are float32 [b, d] of length 1; writers int32 [b]; forged int32 [b], 1 for a forgery of that
writer. Forgeries are negatives of the writer that they imitate and anchors of nothing: two forgers of one
signature need not look alike.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_FAR = 1e9


def supervised_contrastive(
    embeddings: tf.Tensor, writers: tf.Tensor, forged: tf.Tensor, scale: float, margin: float, skilled: float
) -> tf.Tensor:
    """Each genuine pair against everything else in the batch (Khosla et al. 2020).

    Args:
      embeddings, writers, forged: see the module.
      scale: one over the temperature.
      margin: taken from the cosine of positive pairs, as in additive-margin softmax (Wang et al. 2018).
      skilled: weight of a skilled forgery among the negatives; 1 counts it as any other.
    """
    positive, skilled_pairs, anchors = _pairs(writers, forged)
    cosine = tf.matmul(embeddings, embeddings, transpose_b=True)
    logits = scale * (cosine - margin * positive)
    logits += tf.math.log(skilled) * skilled_pairs - _FAR * tf.eye(tf.shape(writers)[0])
    # A pair against the negatives and itself; other positives are no competitors.
    peak = tf.stop_gradient(tf.reduce_max(logits, axis=1, keepdims=True))
    exponentials = tf.exp(logits - peak)
    negatives = tf.reduce_sum(exponentials * (1 - positive), axis=1, keepdims=True)
    each = tf.math.log(exponentials + negatives) - (logits - peak)
    return _mean(tf.reduce_sum(each * positive, axis=1), tf.reduce_sum(positive, axis=1), anchors)


def batch_hard_triplet(
    embeddings: tf.Tensor, writers: tf.Tensor, forged: tf.Tensor, scale: float, margin: float, skilled: float
) -> tf.Tensor:
    """Farthest genuine against nearest other writer and forgery (Hermans et al. 2017, soft margin)."""
    positive, skilled_pairs, anchors = _pairs(writers, forged)
    distance = _distances(embeddings)
    other = 1 - positive - skilled_pairs - tf.eye(tf.shape(writers)[0])
    farthest = tf.reduce_max(distance * positive, axis=1)
    nearest = tf.reduce_min(distance + _FAR * (1 - other), axis=1)
    forgery = tf.reduce_min(distance + _FAR * (1 - skilled_pairs), axis=1)
    loss = tf.nn.softplus(scale * (farthest - nearest + margin))
    # Without a forgery the distance is far, and its term nothing.
    loss += skilled * tf.nn.softplus(scale * tf.maximum(farthest - forgery + margin, -_FAR / 1e6))
    return _mean(loss, tf.ones_like(loss), anchors)


def contrastive(
    embeddings: tf.Tensor, writers: tf.Tensor, forged: tf.Tensor, scale: float, margin: float, skilled: float
) -> tf.Tensor:
    """Genuine pairs together, others at least `margin` apart (Hadsell et al. 2006), kinds apart."""
    del scale
    positive, skilled_pairs, anchors = _pairs(writers, forged)
    distance = _distances(embeddings)
    rows = anchors[:, tf.newaxis]
    other = (1 - positive - skilled_pairs - tf.eye(tf.shape(writers)[0])) * rows
    apart = tf.square(tf.maximum(margin - distance, 0.0))

    def mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values * mask) / tf.maximum(tf.reduce_sum(mask), 1.0)

    return mean(tf.square(distance), positive) + mean(apart, other) + skilled * mean(apart, skilled_pairs)


def one_threshold(
    embeddings: tf.Tensor, writers: tf.Tensor, forged: tf.Tensor, scale: float, margin: float, skilled: float
) -> tf.Tensor:
    """Logistic loss of the cosine at one threshold for all writers, as verification has it.

    The other losses ask what is nearer to an anchor than what; that a steady writer's forgeries lie nearer
    than an unsteady writer's own signatures costs them nothing. Here it does. The threshold lies `margin`
    under the mean cosine of the batch's genuine pairs.
    """
    positive, skilled_pairs, anchors = _pairs(writers, forged)
    other = anchors[:, tf.newaxis] * anchors[tf.newaxis]
    other *= tf.cast(writers[:, tf.newaxis] != writers[tf.newaxis], tf.float32)
    cosine = tf.matmul(embeddings, embeddings, transpose_b=True)

    def mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values * mask) / tf.maximum(tf.reduce_sum(mask), 1.0)

    above = scale * (cosine - tf.stop_gradient(mean(cosine, positive)) + margin)
    return (
        mean(tf.nn.softplus(-above), positive)
        + skilled * mean(tf.nn.softplus(above), skilled_pairs)
        + mean(tf.nn.softplus(above), other)
    ) / (2.0 + skilled)


def pair_cross_entropy(logits: tf.Tensor, writers: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    """Cross entropy of "forged" over ordered pairs: genuine pairs against forgeries and other writers.

    Args:
      logits: float32 [b, b], of the pair (row, column).
      writers, forged: see the module.
    """
    positive, skilled_pairs, genuine = _pairs(writers, forged)
    different = tf.cast(writers[:, tf.newaxis] != writers[tf.newaxis], tf.float32)
    other = different * genuine[:, tf.newaxis] * genuine[tf.newaxis]

    def mean(mask: tf.Tensor, truth: float) -> tf.Tensor:
        each = tf.nn.sigmoid_cross_entropy_with_logits(truth * tf.ones_like(logits), logits)
        return tf.reduce_sum(each * mask) / tf.maximum(tf.reduce_sum(mask), 1.0)

    return mean(positive, 0.0) + 0.5 * mean(skilled_pairs, 1.0) + 0.5 * mean(other, 1.0)


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "supervised_contrastive": supervised_contrastive,
    "batch_hard_triplet": batch_hard_triplet,
    "contrastive": contrastive,
    "one_threshold": one_threshold,
}


def _pairs(writers: tf.Tensor, forged: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Masks float32: genuine pairs of a writer [b, b], (genuine, forgery) pairs [b, b], genuine [b]."""
    genuine = 1.0 - tf.cast(forged, tf.float32)
    same = tf.cast(writers[:, tf.newaxis] == writers[tf.newaxis], tf.float32)
    positive = same * genuine[:, tf.newaxis] * genuine[tf.newaxis] * (1 - tf.eye(tf.shape(writers)[0]))
    skilled = same * genuine[:, tf.newaxis] * (1 - genuine)[tf.newaxis]
    return positive, skilled, genuine


def _distances(embeddings: tf.Tensor) -> tf.Tensor:
    """Euclidean distances of vectors of length 1; the small number keeps the root's slope finite."""
    return tf.sqrt(tf.maximum(2 - 2 * tf.matmul(embeddings, embeddings, transpose_b=True), 0.0) + 1e-6)


def _mean(values: tf.Tensor, counts: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Mean over anchors of each one's mean."""
    used = anchors * tf.cast(counts > 0, tf.float32)
    return tf.reduce_sum(used * values / tf.maximum(counts, 1.0)) / tf.maximum(tf.reduce_sum(used), 1.0)
