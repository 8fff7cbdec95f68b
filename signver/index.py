"""Enrolled signatures: who signs how, searched exactly, kept in one file."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import threading
import zipfile
from typing import Any, Literal

import numpy as np

from signver.errors import SignVerError
from signver.files import write_whole
from signver.images import read_file

FORMAT = 1
_LONGEST_NAME = 200
# Under this many writers one product of matrices takes less than a millisecond, and loading faiss a hundred.
_FAISS_FROM = 10_000
# So many more than asked for are picked by one product each and then scored in full.
_SPARE = 256
# How several references are held against each other, see `Template`.
RIDGE, PRIOR_PAIRS = 0.1, 2
_ENTRIES = ("header.npy", "embeddings.npy", "owners.npy")

Backend = Literal["auto", "faiss", "numpy"]


class SignatureIndex:
    """Embeddings of known writers.

        index = SignatureIndex(extractor.identity)
        index.add("alice", extractor.extract(["a1.png", "a2.png"]))
        index.search(extractor.extract("questioned.png"))    # [("alice", 0.93)]
        index.save("writers.index")

    A writer is scored as `Matcher` scores one, see `Template`; of more than 256 writers, those who score
    highest by one product each (`_first_look`). With faiss or without, the answer is the same. May be used
    from several threads.

    Args:
      model: what the embeddings are comparable within, `MetricExtractor.identity`; embeddings of another
        model are refused on loading. "" for any.
      backend: "auto" takes faiss where it is installed and there are enough writers to gain by it.
    """

    def __init__(self, model: str = "", backend: Backend = "auto"):
        self.model = model
        self.backend = backend
        self._lock = threading.Lock()
        # Replaced as a whole, never changed: a search that runs meanwhile sees one state.
        self._writers: dict[str, np.ndarray] = {}
        self._searcher: _Searcher | None = None

    def __len__(self) -> int:
        return len(self._writers)

    def __contains__(self, identity: object) -> bool:
        return identity in self._writers

    @property
    def length(self) -> int:
        """How many values an embedding has; 0 for an empty index."""
        return next((values.shape[1] for values in self._writers.values()), 0)

    def counts(self) -> dict[str, int]:
        """How many embeddings each writer has, by name."""
        return {name: len(values) for name, values in sorted(self._writers.items())}

    def references(self, identity: str) -> np.ndarray:
        """The embeddings of a writer, float32 [k, d].

        Raises:
          SignVerError: nobody of that name.
        """
        try:
            return self._writers[identity]
        except KeyError:
            raise SignVerError(f"'{identity}' is not enrolled; {self._who()}.") from None

    def add(self, identity: str, embeddings: np.ndarray) -> int:
        """Adds embeddings to a writer, known or new; returns how many that writer has now.

        Args:
          identity: any name of 1 to 200 printable characters.
          embeddings: float [d] or [k, d].

        Raises:
          SignVerError: such a name cannot be kept, or embeddings of another length or without direction.
        """
        check_name(identity)
        added = unit_rows(embeddings)
        with self._lock:
            if self._writers and added.shape[1] != self.length:
                raise SignVerError(
                    f"'{identity}': embeddings of {added.shape[1]} values; the index holds {self.length}: "
                    "they are of another model."
                )
            known = self._writers.get(identity, added[:0])
            self._writers = {**self._writers, identity: np.concatenate([known, added])}
            self._searcher = None
        return len(self._writers[identity])

    def remove(self, identity: str) -> None:
        """Forgets a writer.

        Raises:
          SignVerError: nobody of that name.
        """
        with self._lock:
            self.references(identity)
            self._writers = {name: rows for name, rows in self._writers.items() if name != identity}
            self._searcher = None

    def search(
        self, query: np.ndarray, count: int = 5, consistency: float | None = None
    ) -> list[tuple[str, float]]:
        """The writers most like an embedding: name and similarity, best first; equal ones by name.

        Args:
          query: float [d].
          count: how many at most.
          consistency: as for `Template`.

        Raises:
          SignVerError: an embedding of another length, or without direction.
        """
        rows = unit_rows(query)
        with self._lock:
            if not self._writers:
                return []
            if len(rows) != 1 or rows.shape[1] != self.length:
                raise SignVerError(
                    f"query of {list(np.shape(query))} values; expected one embedding of {self.length}."
                )
            if self._searcher is None or self._searcher.consistency != consistency:
                self._searcher = _Searcher(self._writers, self.backend, consistency)
            searcher = self._searcher
        return searcher.search(rows[0], count)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index whole or not at all; the same index gives the same bytes.

        Raises:
          SignVerError: the file cannot be written.
        """
        writers = self._writers
        names = sorted(writers)
        header = {"format": FORMAT, "model": self.model, "writers": names}
        rows = np.concatenate([writers[name] for name in names]) if names else np.empty((0, 0), np.float32)
        stream = io.BytesIO()
        np.savez(
            stream,
            header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            embeddings=rows,
            owners=np.repeat(np.arange(len(names), dtype=np.int32), [len(writers[name]) for name in names]),
        )
        write_whole(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: str = "", backend: Backend = "auto") -> SignatureIndex:
        """Reads an index; nothing in the file is executed.

        Args:
          path: what `save` wrote.
          model: `MetricExtractor.identity` of the extractor in use; "" takes any.
          backend: as for the class.

        Raises:
          SignVerError: missing, damaged, of a newer format, or made by another model.
        """
        name = os.fspath(path)
        header, rows, owners = _read(read_file(path), name)
        if header["format"] != FORMAT:
            raise SignVerError(f"{name}: format {header['format']} of an index; this SDK reads {FORMAT}.")
        if model and header["model"] != model:
            raise SignVerError(
                f"{name}: made by another extractor (sha256 {str(header['model'])[:12] or 'unknown'}…, not "
                f"{model[:12]}…); its embeddings compare with none of this one. Enroll the writers anew."
            )
        index = cls(str(header["model"]), backend)
        for number, writer in enumerate(header["writers"]):
            index._writers[check_name(writer)] = rows[owners == number]
        return index

    def _who(self) -> str:
        names = sorted(self._writers)
        if not names:
            return "the index is empty"
        return "enrolled: " + ", ".join(names[:10]) + (f" and {len(names) - 10} more" if names[10:] else "")


class _Searcher:
    """One state of an index, made ready: float32 rows for the first pick, then each writer's `Template`."""

    def __init__(self, writers: dict[str, np.ndarray], backend: Backend, consistency: float | None):
        self.consistency = consistency
        self._names = sorted(writers)
        self._references = [writers[name] for name in self._names]
        self._templates: dict[int, Template] = {}
        rows = [_first_look(references, consistency) for references in self._references]
        self._rows = np.stack(rows).astype(np.float32)
        self._faiss = _faiss_index(self._rows, backend)

    def search(self, query: np.ndarray, count: int) -> list[tuple[str, float]]:
        wanted = min(count + _SPARE, len(self._names))
        exact = query.astype(np.float64)
        exact /= np.linalg.norm(exact)
        first = np.append(exact, 1.0).astype(np.float32)
        if self._faiss is not None:
            places = self._faiss.search(np.ascontiguousarray(first[np.newaxis]), wanted)[1][0]
        else:
            places = np.argpartition(-(self._rows @ first), wanted - 1)[:wanted]
        found = [(self._template(place).similarity(exact), place) for place in places.tolist()]
        ranked = sorted(found, key=lambda pair: (-pair[0], pair[1]))
        return [(self._names[place], score) for score, place in ranked[:count]]

    def _template(self, place: int) -> Template:
        """Made when first needed: an inverse each, and most writers are never near."""
        if place not in self._templates:
            self._templates[place] = Template(self._references[place], self.consistency)
        return self._templates[place]


def _faiss_index(rows: np.ndarray, backend: Backend) -> Any:
    if backend == "numpy" or (backend == "auto" and len(rows) < _FAISS_FROM):
        return None
    if importlib.util.find_spec("faiss") is None:
        if backend == "auto":
            return None
        raise SignVerError("faiss is not installed; pip install 'signver-harness[faiss]'.")
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


class Template:
    """What a writer's references say of any other signature: whether it is what this hand would write.

    Without `consistency`, and for one reference, the similarity is the cosine with the references' mean.
    With it, several references are held against each other: who signs much the same each time must be met
    more closely than who varies, and more closely in all that stays the same than in what varies from one
    reference to the next. So d, the squared distance to the nearest mean of the references, takes their best
    weights, negative ones too, which sum to 1; the square of each costs `RIDGE`. What d should be is known
    from the references themselves: each is measured from the others in the same way. Few references say
    little of a hand, so that is averaged with `PRIOR_PAIRS` imagined pairs of usual likeness.
    Similarity = consistency + (what d should be - d) / 2, which for one reference is the cosine again: one
    threshold serves any number of references. docs/realism.md has what each part gains.

    This is ordinary kriging: d is its variance, and Dubrule 1983, "Cross validation of kriging in a unique
    neighborhood", has why one inverse tells how far each reference is from the others.

    Args:
      references: float [k, d], each of length 1.
      consistency: mean cosine of two genuine signatures of a writer, `MetricExtractor.consistency`.
    """

    def __init__(self, references: np.ndarray, consistency: float | None = None):
        self._references = references
        self._consistency = consistency
        count = len(references)
        self._inverse = None
        if count == 1 or consistency is None:
            return
        rows = np.asarray(references, np.float64)
        system = np.ones((count + 1, count + 1))
        system[:count, :count] = rows @ rows.T + RIDGE * np.eye(count)
        system[count, count] = 0
        self._inverse = np.linalg.inv(system)
        # Less than all references are a little farther from the one that is left out than all from another.
        own = float(np.mean(1 / np.diag(self._inverse)[:count])) - RIDGE - RIDGE / (count - 1)
        own = own * (1 - 1 / count**2) + RIDGE / count
        usual = (1 - consistency) * (1 + 1 / count) + RIDGE / count
        pairs = count * (count - 1) / 2
        self._expected = (pairs * own + PRIOR_PAIRS * usual) / (pairs + PRIOR_PAIRS)

    def similarity(self, embedding: np.ndarray) -> float:
        """What is held against the threshold.

        Args:
          embedding: float64 [d], of length 1.
        """
        if self._inverse is None or self._consistency is None:
            return float(_first_look(self._references, None)[:-1] @ embedding)
        near = np.append(np.asarray(self._references, np.float64) @ embedding, 1.0)
        return self._consistency + (self._expected - 1 + float(near @ self._inverse @ near)) / 2


def _first_look(references: np.ndarray, consistency: float | None) -> np.ndarray:
    """Nearly `Template` as one product, float64 [d + 1], with an embedding and a 1 behind it.

    The mean cosine, less how alike the references are among themselves.
    """
    rows = np.asarray(references, np.float64)
    total, count = rows.sum(axis=0), len(rows)
    if count == 1 or consistency is None:
        return np.append(total / max(float(np.linalg.norm(total)), 1e-12), 0.0)
    pairs = count * (count - 1) / 2
    likeness = (float(total @ total) - count) / 2
    usual = (PRIOR_PAIRS * consistency + likeness) / (PRIOR_PAIRS + pairs)
    return np.append(total / count, consistency - usual)


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [d] or [k, d] as float32 [k, d], each of length 1.

    Raises:
      SignVerError: no embedding, not finite, or all 0.
    """
    values = np.atleast_2d(np.asarray(embeddings, np.float64))
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise SignVerError(f"embedding: expected finite values [d] or [k, d], found {list(values.shape)}.")
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    if lengths.min() < 1e-12:
        raise SignVerError("embedding: all values are 0.")
    return (values / lengths).astype(np.float32)


def check_name(identity: object) -> str:
    """A writer's name.

    Raises:
      SignVerError: not 1 to 200 printable characters.
    """
    if not isinstance(identity, str) or not 0 < len(identity) <= _LONGEST_NAME or not identity.isprintable():
        raise SignVerError(f"name {identity!r:.60}: expected 1 to {_LONGEST_NAME} printable characters.")
    return identity


def _read(data: bytes, name: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            # Stored, never packed: what it holds is no larger than the file.
            if set(entries) != set(_ENTRIES) or any(entry.compress_type for entry in entries.values()):
                raise ValueError("it holds other parts than an index has")
            header, rows, owners = (
                np.lib.format.read_array(io.BytesIO(archive.read(entry)), allow_pickle=False)
                for entry in _ENTRIES
            )
        values = json.loads(header.tobytes())
        names = values["writers"]
        if rows.dtype != np.float32 or rows.ndim != 2 or owners.dtype != np.int32:
            raise ValueError("its arrays are of another kind")
        counts = np.bincount(owners, minlength=len(names))
        if len(owners) != len(rows) or len(counts) != len(names) or len(set(names)) != len(names):
            raise ValueError("its parts do not fit each other")
        if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
            raise ValueError("an embedding is not of length 1")
        if (counts == 0).any():
            raise ValueError("a writer has no embedding")
        if not isinstance(values["format"], int) or not isinstance(values["model"], str):
            raise ValueError("its header is of another kind")
    except Exception as error:  # zipfile, numpy and json each raise their own
        raise SignVerError(f"{name}: no index of signatures, or damaged ({error}).") from error
    return values, rows, owners
