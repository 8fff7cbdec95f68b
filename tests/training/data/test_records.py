"""The order of a run: every record once an epoch, the same at any number of ranks, resumable anywhere."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from training.data import records
from training.errors import UserError


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    number = 0
    for shard, count in enumerate((5, 1, 7)):
        with tf.io.TFRecordWriter(str(folder / f"train-{shard:05d}-of-00003")) as writer:
            for _ in range(count):
                writer.write(b"%d" % number * (number + 1))
                number += 1
    return str(folder / "train*")


def _texts(index, positions, seed=3):
    return [text for _, text in records.training_stream(index, seed, positions)]


def test_index_reads_what_tensorflow_wrote(shards):
    index = records.index_records(shards)
    reader = records.RecordReader(index)
    expected = [text.numpy() for text in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(shards)))]
    assert [reader.read(number) for number in range(len(index))] == expected


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_together_see_each_record_once_an_epoch_in_one_order(shards, size):
    index = records.index_records(shards)
    batch, steps = 4, 13  # 52 samples: four epochs of 13
    ranks = [
        _texts(index, itertools.islice(records.training_positions(batch, rank, size), steps * batch // size))
        for rank in range(size)
    ]
    share = batch // size
    merged = [
        text for step in range(steps) for rank in ranks for text in rank[step * share : (step + 1) * share]
    ]
    assert merged == _texts(index, iter(range(52)))
    for epoch in range(4):
        assert len(set(merged[13 * epoch : 13 * epoch + 13])) == 13
    assert merged[:13] != merged[13:26]


def test_a_resumed_run_continues_where_it_stopped_even_with_other_ranks(shards):
    index = records.index_records(shards)
    whole = _texts(index, itertools.islice(records.training_positions(4, 0, 1), 40))
    rest = [
        list(itertools.islice(records.training_positions(4, rank, 2, first_step=6), 8)) for rank in (0, 1)
    ]
    merged = [position for step in range(4) for rank in rest for position in rank[2 * step : 2 * step + 2]]
    assert _texts(index, iter(merged)) == whole[24:40]


def test_evaluation_reads_every_record_once(shards):
    index = records.index_records(shards)
    seen = [number for rank in range(3) for number, _ in records.evaluation_stream(index, rank, 3)]
    assert sorted(seen) == list(range(13))


def test_order_depends_on_the_seed_alone():
    assert np.array_equal(records.epoch_order(50, 1, 2), records.epoch_order(50, 1, 2))
    assert not np.array_equal(records.epoch_order(50, 1, 2), records.epoch_order(50, 2, 2))


def test_fingerprint_follows_the_contents_and_not_the_place(shards, tmp_path):
    before = records.index_records(shards).fingerprint
    for file in tf.io.gfile.glob(shards):
        tf.io.gfile.copy(file, str(tmp_path / file.rsplit("/", 1)[1]))
    assert records.index_records(str(tmp_path / "train*")).fingerprint == before
    with tf.io.TFRecordWriter(str(tmp_path / "train-00001-of-00003")) as writer:
        writer.write(b"5" * 6 + b"!")
    assert records.index_records(str(tmp_path / "train*")).fingerprint != before


def test_missing_truncated_and_empty_data_are_named(shards, tmp_path):
    with pytest.raises(UserError, match="matches no file"):
        records.index_records(str(tmp_path / "nothing*"))
    (tmp_path / "set/train").mkdir(parents=True)
    for folder in (tmp_path / "set", tmp_path / "set/train*"):
        with pytest.raises(UserError, match="is a folder"):
            records.index_records(str(folder))
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with pytest.raises(UserError, match="no record"):
        records.index_records(str(empty))
    whole = pathlib.Path(sorted(tf.io.gfile.glob(shards))[0]).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-3])
    with pytest.raises(UserError, match="record 4 is truncated"):
        records.index_records(str(tmp_path / "cut"))


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(UserError, match="not divisible by 3"):
        next(records.training_positions(8, 0, 3))
