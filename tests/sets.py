"""Small data sets that several test modules train on."""

from training.data import signatures, tfrecord


def of_sixteen_writers(folder):
    """One synthetic signature each: twelve to train on, four to evaluate; returns the folder."""
    pages = [signatures.synthesize(0, number, 0, signatures.GENUINE) for number in range(16)]
    splits = {"train": pages[:12], "eval": pages[12:]}
    tfrecord.write_dataset(folder, splits, signatures.CLASSES, shards=1, source="test")
    return folder
