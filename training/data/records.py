"""Random access to TFRecord files, and the order in which a run reads them.

The order is a pure function of (seed, position): position p of a run is record `order(epoch)[p % n]`
with epoch = p // n. No shuffle buffer, so a run that resumes at step s continues at position
s * global batch exactly, on any number of ranks and whatever the number of shards, and every record
of an epoch is read exactly once.

Framing of a record: length (uint64), masked CRC of the length (uint32), data, masked CRC of the data
(uint32), little endian; source: TensorFlow's `tfrecord` documentation.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from training.data import location
from training.errors import UserError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Where each record of a data set lies.

    Attributes:
      files: the shards, sorted by name.
      file_numbers: int32 [n], index into `files`.
      offsets: int64 [n], first byte of the record's data.
      lengths: int64 [n], bytes of data.
      fingerprint: SHA-256 over the stored lengths and checksums of every record, in file order:
        the same contents give the same fingerprint wherever the files lie.
    """

    files: tuple[str, ...]
    file_numbers: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.offsets)


def match_files(input_path: str | Sequence[str]) -> list[str]:
    """The files that a pattern, a comma-separated list of patterns or a list of them names, sorted.

    Raises:
      UserError: a pattern matches nothing.
    """
    patterns = [input_path] if isinstance(input_path, str) else list(input_path)
    files: list[str] = []
    for pattern in (part.strip() for entry in patterns for part in entry.split(",")):
        if not pattern:
            continue
        found = sorted(glob.glob(location.locate(pattern)))
        matched = [path for path in found if not os.path.isdir(path)]
        if found and not matched:
            raise UserError(f"no data: {found[0]} is a folder; name its files, e.g. '{found[0]}/train*'.")
        if not matched:
            raise UserError(
                f"no data: '{location.locate(pattern)}' matches no file.\n"
                "Make a data set with `python -m training.data synthesize pages` or `... convert`, "
                "and point task.train_data.input_path and task.validation_data.input_path at it."
            )
        files += matched
    if not files:
        raise UserError("no data: input_path is empty; name the TFRecord files, e.g. 'data/train*'.")
    return files


def index_records(input_path: str | Sequence[str]) -> RecordIndex:
    """Scans the framing of every record; reads 16 bytes a record, never the data.

    Raises:
      UserError: nothing matches, a shard is truncated, or all shards are empty.
    """
    files = match_files(input_path)
    digest = hashlib.sha256()
    numbers: list[int] = []
    offsets: list[int] = []
    lengths: list[int] = []
    for number, file in enumerate(files):
        for offset, length, checksum in _scan(file):
            numbers.append(number)
            offsets.append(offset)
            lengths.append(length)
            digest.update(_HEADER.pack(length, checksum))
    if not offsets:
        raise UserError(f"no data: {files[0]} and its {len(files) - 1} siblings hold no record.")
    return RecordIndex(
        tuple(files),
        np.array(numbers, np.int32),
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
        digest.hexdigest(),
    )


def _scan(file: str) -> Iterator[tuple[int, int, int]]:
    size = os.path.getsize(file)
    with open(file, "rb") as stream:
        position = 0
        record = 0
        while position < size:
            header = stream.read(_HEADER.size)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
            end = position + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise UserError(
                    f"{file}: record {record} is truncated (needs byte {end}, the file has {size}).\n"
                    f"Run `python -m training.data check {os.path.dirname(file) or '.'}` for a full report."
                )
            stream.seek(length, os.SEEK_CUR)
            checksum = _FOOTER.unpack(stream.read(_FOOTER.size))[0]
            yield position + _HEADER.size, length, checksum
            position = end
            record += 1


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `count` records, int64 [count], decided by (seed, epoch) alone."""
    generator = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, epoch]))
    return generator.permutation(count)


def training_positions(global_batch: int, rank: int, size: int, first_step: int = 0) -> Iterator[int]:
    """Positions that one rank reads: its share of each global batch, from `first_step` on, endlessly.

    Rank r of N takes positions [s*B + r*b, s*B + (r+1)*b) of step s, with b = B / N, so all ranks
    together read what a single process with the same global batch reads, in the same order.

    Raises:
      UserError: `global_batch` is not divisible by `size`.
    """
    if global_batch % size:
        raise UserError(
            f"global_batch_size {global_batch} is not divisible by {size} processes; "
            f"take {global_batch // size * size or size} or {(global_batch // size + 1) * size}."
        )
    share = global_batch // size
    step = first_step
    while True:
        start = step * global_batch + rank * share
        yield from range(start, start + share)
        step += 1


class RecordReader:
    """Reads records of an index by number; keeps its files open. Not shared between threads."""

    def __init__(self, index: RecordIndex):
        self._index = index
        self._streams: dict[int, int] = {}

    def read(self, record: int) -> bytes:
        """The serialised bytes of record `record`."""
        number = int(self._index.file_numbers[record])
        if number not in self._streams:
            self._streams[number] = os.open(self._index.files[number], os.O_RDONLY)
        return os.pread(
            self._streams[number], int(self._index.lengths[record]), int(self._index.offsets[record])
        )

    def close(self) -> None:
        """Closes the files."""
        for stream in self._streams.values():
            os.close(stream)
        self._streams.clear()


def training_stream(index: RecordIndex, seed: int, positions: Iterator[int]) -> Iterator[tuple[int, bytes]]:
    """(position, serialised record) for each position of a run."""
    reader = RecordReader(index)
    try:
        epoch, order = -1, np.empty(0, np.int64)
        for position in positions:
            if position // len(index) != epoch:
                epoch = position // len(index)
                order = epoch_order(len(index), seed, epoch)
            yield position, reader.read(int(order[position % len(index)]))
    finally:
        reader.close()


def evaluation_stream(index: RecordIndex, rank: int, size: int) -> Iterator[tuple[int, bytes]]:
    """(record number, serialised record) of one rank's share of a data set, each record once."""
    reader = RecordReader(index)
    try:
        for record in range(rank, len(index), size):
            yield record, reader.read(record)
    finally:
        reader.close()
