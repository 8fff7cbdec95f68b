"""Batches of writers: whole, in turn, the same on any number of ranks, changed where it must not matter."""

import itertools

import numpy as np
import pytest

from training.data import signatures
from training.errors import UserError
from training.extractor import input as source

GENUINE, FORGED = 3, 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = signatures.write_samples(tmp_path_factory.mktemp("set"), writers=4, genuine=5, forged=3)
    return source.load_set(path)


def take(found, count, **options):
    batches = source.training_batches(found, GENUINE, FORGED, source.Jitter(), source.Persona(), 7, **options)
    return list(itertools.islice(batches, count))


def test_a_set_holds_every_signature_under_its_writer(found):
    assert found.images.shape == (32, 192, 384)
    assert len(found.names) == 4
    for writer in range(4):
        assert len(found.of(writer, False)) == 5
        assert len(found.of(writer, True)) == 3
    assert all(found.names[w] == name[:5] for w, name in zip(found.writers, found.files, strict=True))


def test_every_batch_has_whole_writers(found):
    images, (writers, forged) = take(found, 1, batch=10)[0]
    assert images.shape == (10, 192, 384, 1)
    assert images.dtype == np.uint8
    for visit in range(2):
        part = slice(visit * 5, visit * 5 + 5)
        assert len(set(writers[part])) == 1
        assert forged[part].tolist() == [0, 0, 0, 1, 1]
    assert writers[0] != writers[5]


def test_every_writer_and_every_signature_has_its_turn(found):
    visited = list(itertools.islice(source.visits(found, GENUINE, FORGED, 7, iter(range(4 * 5))), 4 * 5))
    for epoch in range(5):
        assert {int(found.writers[v[0]]) for v in visited[4 * epoch : 4 * epoch + 4]} == {0, 1, 2, 3}
    for writer in range(4):
        mine = np.concatenate([v for v in visited if found.writers[v[0]] == writer])
        numbers, counts = np.unique(mine, return_counts=True)
        own = np.isin(numbers, found.of(writer, False))
        assert own.sum() == 5
        assert set(counts[own]) == {3}  # five visits of three, five signatures
        assert (~own).sum() == 3
        assert counts[~own].max() - counts[~own].min() <= 1


def test_ranks_together_read_what_one_process_reads(found):
    whole = take(found, 3, batch=20)
    parts = [take(found, 3, batch=20, rank=rank, size=2) for rank in range(2)]
    for step in range(3):
        joined = np.concatenate([part[step][0] for part in parts])
        np.testing.assert_array_equal(joined, whole[step][0])


def test_a_resumed_run_goes_on(found):
    np.testing.assert_array_equal(
        take(found, 5, batch=10)[3][0], take(found, 2, batch=10, first_step=3)[0][0]
    )


def test_no_two_looks_are_alike_but_the_seed_decides_them(found):
    first, again = take(found, 9, batch=10), take(found, 9, batch=10)
    np.testing.assert_array_equal(first[8][0], again[8][0])
    looks = np.concatenate([images for images, _ in first])
    assert len(np.unique(looks.reshape(len(looks), -1), axis=0)) == len(looks)


def test_the_ink_stays_ink(found):
    rng = np.random.default_rng(0)
    shares = [source.change(image, source.Jitter(), rng).mean() / image.mean() for image in found.images]
    assert min(shares) > 0.3
    assert 0.7 < np.mean(shares) < 1.8


def test_faint_ink_is_moved_as_well_and_the_set_stays_as_it_was(found):
    # A thin pen in a large scan, reduced.
    faint = (found.images[0].astype(np.float32) * 0.15).astype(np.uint8)
    kept, rng = faint.copy(), np.random.default_rng(0)
    looks = [source.change(faint, source.Jitter(dirt=1.0), rng) for _ in range(20)]
    np.testing.assert_array_equal(faint, kept)
    assert len({(look > 20)[:, :40].sum() for look in looks}) > 3
    blank = np.zeros_like(faint)
    source.change(blank, source.Jitter(dirt=1.0), rng)
    assert not blank.any()


@pytest.mark.parametrize(("batch", "size"), [(12, 1), (10, 4)])
def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(found, batch, size):
    with pytest.raises(
        UserError, match=f"global_batch_size {batch} is not divisible by {size} processes × 5"
    ):
        take(found, 1, batch=batch, size=size)


def test_writers_of_one_signature_teach_nothing(tmp_path):
    path = signatures.write_samples(tmp_path, writers=3, genuine=1, forged=0)
    with pytest.raises(UserError, match="0 writers with at least 2 genuine signatures"):
        take(source.load_set(path), 1, batch=10)


def test_without_forgeries_other_writers_take_their_place(tmp_path):
    single = source.load_set(signatures.write_samples(tmp_path, writers=3, genuine=4, forged=0))
    _, (writers, forged) = take(single, 1, batch=10)[0]
    assert not forged.any()
    assert len(set(writers[:3])) == 1
    assert writers[3] != writers[0]
