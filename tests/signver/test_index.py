"""Enrolled writers are found exactly, with faiss and without; a damaged or foreign file is refused."""

import io
import json
import math
import os
import threading
import zipfile

import numpy as np
import pytest

from signver import Matcher, SignatureIndex, SignVerError
from signver import index as module


def embeddings(count, length=32, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(writers=50, each=3, backend="auto", seed=0):
    index = SignatureIndex("model-a", backend)
    rows = embeddings(writers * each, seed=seed).reshape(writers, each, -1)
    for number, own in enumerate(rows):
        index.add(f"writer {number:03d}", own)
    return index


def test_search_ranks_as_the_matcher_scores():
    index = filled()
    query = embeddings(1, seed=5)[0]
    scores = {name: Matcher().cosine_similarity(index.references(name), query) for name in index.counts()}
    expected = sorted(scores, key=lambda name: -scores[name])[:7]
    found = index.search(query, 7)
    assert [name for name, _ in found] == expected
    assert [score for _, score in found] == pytest.approx([scores[name] for name in expected], abs=1e-6)
    assert len(index.search(query, 1000)) == 50


def test_search_ranks_as_a_matcher_that_knows_the_usual_consistency():
    index, matcher = filled(), Matcher(consistency=0.8)
    query = embeddings(1, seed=5)[0]
    scores = {name: matcher.similarity(index.references(name), query) for name in index.counts()}
    for backend in ("numpy", "auto"):
        index._backend, index._searcher = backend, None
        found = dict(matcher.identify(query, index, count=50))
        assert found == pytest.approx(scores, abs=1e-6)
    # The same index may serve a matcher that does not.
    assert dict(index.search(query, 50)) != pytest.approx(scores, abs=1e-3)


def farness(references, query):
    """Least |query - weights @ references|² + |weights|² / 10 where the weights sum to 1."""
    rest, last = references[:-1] - references[-1], references[-1]
    count = len(rest)
    # The last weight is 1 less the others.
    costs = math.sqrt(0.1) * np.vstack([np.eye(count), -np.ones(count)])
    left = np.vstack([rest.T, costs])
    right = np.concatenate([query - last, np.zeros(count), [-math.sqrt(0.1)]])
    weights = np.linalg.lstsq(left, right, rcond=None)[0]
    return float(np.sum((left @ weights - right) ** 2))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_several_references_are_a_span_and_tell_how_near_its_writer_comes(count):
    rows = embeddings(count + 1, 16).astype(np.float64)
    references, query = rows[:-1], rows[-1]
    left_out = [farness(np.delete(references, n, axis=0), references[n]) for n in range(count)]
    own = (np.mean(left_out) - 0.1 / (count - 1)) * (1 - 1 / count**2) + 0.1 / count
    usual = (1 - 0.6) * (1 + 1 / count) + 0.1 / count
    pairs = count * (count - 1) / 2
    expected = (pairs * own + 2 * usual) / (pairs + 2)
    found = Matcher(consistency=0.6).similarity(references, query)
    assert found == pytest.approx(0.6 + (expected - farness(references, query)) / 2, abs=1e-6)


def test_one_reference_scores_as_the_cosine():
    first, second = embeddings(2)
    assert Matcher(consistency=0.8).similarity(first, second) == pytest.approx(
        float(first @ second), abs=1e-6
    )


def test_a_steady_writer_must_be_met_more_closely():
    steady, query = np.array([1.0, 0, 0]), np.array([0.9, math.sqrt(1 - 0.81), 0])
    same = np.stack([steady, steady, steady])
    apart = np.stack([[0.8, 0, 0.6], [0.8, 0, -0.6], steady])
    matcher = Matcher(0.85, consistency=0.8)
    assert matcher.verify(steady, query)  # one reference says nothing of the hand: the cosine, 0.9
    # Of 0.2 away where 0 would be usual, but for two imagined pairs of 0.27 beside three.
    assert matcher.similarity(same, query) == pytest.approx(0.8 + (2 / 5 * 0.8 / 3 - 0.2) / 2)
    assert not matcher.verify(same, query)
    assert matcher.similarity(apart, query) > matcher.similarity(same, query)
    assert matcher.similarity(query, apart) == matcher.similarity(apart, query)
    # SignVer's matcher, which knows no consistency, takes the cosine with the mean.
    assert Matcher(0.85).similarity(same, query) == pytest.approx(0.9)


def test_what_varies_between_references_may_vary_in_a_signature():
    def turned(towards, degrees):
        row = np.zeros(8)
        row[0], row[towards] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return row

    references = np.stack([turned(1, degrees) for degrees in (-20, -10, 0, 10)])
    matcher = Matcher(consistency=0.9)
    along, aside = (matcher.similarity(references, turned(towards, 20)) for towards in (1, 2))
    assert along > aside + 0.02


def test_of_very_many_writers_the_best_are_found():
    """Writers are picked by one product each; who scores best in full is among them."""
    rng = np.random.default_rng(0)
    hands, away = rng.normal(size=(800, 1, 64)), rng.normal(size=(800, 6, 64))
    signatures = hands + 0.7 * away
    index, matcher = SignatureIndex(), Matcher(consistency=0.6)
    for number, own in enumerate(signatures):
        index.add(f"writer {number:04d}", own[:5])
    for number in range(0, 800, 200):
        query = signatures[number, 5]
        scores = {name: matcher.similarity(index.references(name), query) for name in index.counts()}
        expected = sorted(scores, key=lambda name: -scores[name])[:3]
        assert [name for name, _ in index.search(query, 3, 0.6)] == expected


def test_equal_writers_come_by_name():
    index = SignatureIndex()
    row = embeddings(1)[0]
    for name in ("bea", "abe", "cleo"):
        index.add(name, row)
    assert [name for name, _ in index.search(row, 2)] == ["abe", "bea"]


def test_faiss_gives_the_same_answers():
    pytest.importorskip("faiss", reason="faiss is not installed; pip install 'signver-harness[faiss]'")
    plain, fast = (filled(600, 2, backend) for backend in ("numpy", "faiss"))
    for query in embeddings(30, seed=9):
        assert fast.search(query, 10) == plain.search(query, 10)


def test_faiss_is_taken_by_itself_for_many_writers(monkeypatch):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    used = []
    original = faiss.IndexFlatIP
    monkeypatch.setattr(faiss, "IndexFlatIP", lambda length: used.append(length) or original(length))
    filled(5).search(embeddings(1)[0])
    assert used == []
    monkeypatch.setattr(module, "_FAISS_FROM", 5)
    filled(5).search(embeddings(1)[0])
    assert used == [33]  # and one for what is added to a writer's cosine


def test_faiss_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "_FAISS_FROM", 5)
    assert len(filled(5).search(embeddings(1)[0])) == 5
    with pytest.raises(SignVerError, match=r"signver-harness\[faiss\]"):
        filled(5, backend="faiss").search(embeddings(1)[0])


def test_an_index_comes_back_from_its_file(tmp_path):
    index, query = filled(), embeddings(1, seed=3)[0]
    index.save(tmp_path / "new" / "writers.index")
    again = SignatureIndex.load(tmp_path / "new" / "writers.index", "model-a")
    assert again.counts() == index.counts()
    assert again.search(query, 9) == index.search(query, 9)
    again.save(tmp_path / "again.index")
    assert (tmp_path / "again.index").read_bytes() == (tmp_path / "new" / "writers.index").read_bytes()
    assert os.listdir(tmp_path / "new") == ["writers.index"]
    SignatureIndex("model-a").save(tmp_path / "empty.index")
    assert len(SignatureIndex.load(tmp_path / "empty.index")) == 0


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "writers.index"
    filled(3).save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("signver.files.os.replace", fail)
    with pytest.raises(SignVerError, match="No space left"):
        filled(4).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["writers.index"]


def test_embeddings_of_another_model_are_refused(tmp_path):
    filled(3).save(tmp_path / "writers.index")
    with pytest.raises(SignVerError, match="another extractor"):
        SignatureIndex.load(tmp_path / "writers.index", "model-b")
    with pytest.raises(SignVerError, match="embeddings of 16 values; the index holds 32"):
        filled(3).add("one more", embeddings(1, 16))
    with pytest.raises(SignVerError, match="expected one embedding of 32"):
        filled(3).search(embeddings(1, 16)[0])


@pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines", None, 7])
def test_names_that_cannot_be_kept_are_refused(name):
    with pytest.raises(SignVerError, match="printable"):
        SignatureIndex().add(name, embeddings(1))


@pytest.mark.parametrize("rows", [np.zeros(4), [np.nan, 1], np.empty((0, 4)), np.ones((2, 2, 2))])
def test_what_is_no_embedding_is_refused(rows):
    with pytest.raises(SignVerError, match="embedding"):
        SignatureIndex().add("ada", rows)


def test_writers_are_forgotten():
    index = filled(3)
    index.remove("writer 001")
    assert "writer 001" not in index
    assert len(index.search(embeddings(1)[0])) == 2
    with pytest.raises(SignVerError, match="'writer 001' is not enrolled; enrolled: writer 000, writer 002"):
        index.remove("writer 001")
    with pytest.raises(SignVerError, match="the index is empty"):
        SignatureIndex().references("ada")


def _repacked(data, **changes):
    """The same archive with parts replaced; None leaves one out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        parts = {entry.filename: old.read(entry) for entry in old.infolist()} | changes
        for name, content in parts.items():
            if content is not None:
                new.writestr(name, content)
    return stream.getvalue()


def _array(value, **options):
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()


def _header(**values):
    header = {"format": 1, "model": "model-a", "writers": ["a", "b", "c"]} | values
    return _array(np.frombuffer(json.dumps(header).encode(), np.uint8))


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (os.putenv, ("SIGNVER_TRAP", "sprung"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header.npy": None}, "other parts"),
        ({"more.npy": b"x"}, "other parts"),
        ({"embeddings.npy": _array(np.array([Trap()] * 9, object), allow_pickle=True)}, "Object arrays"),
        ({"embeddings.npy": _array(np.ones((9, 4), np.float64))}, "of another kind"),
        ({"embeddings.npy": _array(np.full((9, 4), np.nan, np.float32))}, "length 1"),
        ({"embeddings.npy": _array(np.ones((8, 4), np.float32))}, "do not fit"),
        ({"owners.npy": _array(np.zeros(9, np.int32))}, "no embedding|do not fit"),
        ({"owners.npy": _array(np.full(9, -1, np.int32))}, "damaged"),
        ({"owners.npy": _array(np.full(9, 2**30, np.int32))}, "damaged"),
        ({"header.npy": _header(format=2)}, "format 2"),
        ({"header.npy": _header(writers=["a", "a", "b"])}, "do not fit"),
        ({"header.npy": _header(writers=["a", "b", "\n"])}, "printable"),
        ({"header.npy": _header(model=None)}, "of another kind"),
        ({"header.npy": b"\x93NUMPY\x01\x00"}, "damaged"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, changes, words):
    path = tmp_path / "writers.index"
    filled(3).save(path)
    path.write_bytes(_repacked(path.read_bytes(), **changes))
    with pytest.raises(SignVerError, match=words):
        SignatureIndex.load(path)
    assert "SIGNVER_TRAP" not in os.environ


def test_damaged_bytes_are_refused_or_change_nothing(tmp_path):
    path, query = tmp_path / "writers.index", embeddings(1)[0]
    index = filled(3)
    index.save(path)
    good, expected = path.read_bytes(), index.search(query)
    rng = np.random.default_rng(1)
    refused = 0
    for number in range(150):
        data = bytearray(good)
        if number % 3:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del data[rng.integers(1, len(data)) :]
        path.write_bytes(data)
        try:
            found = SignatureIndex.load(path, "model-a").search(query)
        except SignVerError:
            refused += 1
        else:
            assert found == expected
    assert refused > 120


def test_a_packed_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.index", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("header.npy", "embeddings.npy", "owners.npy"):
            archive.writestr(name, bytes(50_000_000))
    with pytest.raises(SignVerError, match="other parts"):
        SignatureIndex.load(tmp_path / "bomb.index")


def test_threads_add_and_search_at_once():
    index = filled(10)
    query = embeddings(1)[0]
    failures = []

    def work(number):
        try:
            for step in range(30):
                index.add(f"new {number} {step}", embeddings(1, seed=100 * number + step))
                assert len(index.search(query, 5)) == 5
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(index) == 10 + 8 * 30


def test_the_matcher_enrolls_identifies_and_keeps(tmp_path):
    matcher = Matcher(0.5, SignatureIndex("model-a"))
    rows = embeddings(6)
    assert matcher.enroll("ada", rows[:2]) == 2
    assert matcher.enroll("ada", rows[2]) == 3
    assert matcher.enroll("bob", rows[3:]) == 3
    name, score = matcher.identify(rows[0])[0]
    assert name == "ada"
    assert score == pytest.approx(matcher.cosine_similarity(rows[:3], rows[0]), abs=1e-6)
    matcher.save_index(tmp_path / "writers.index")
    other = Matcher(0.5, SignatureIndex("model-a"))
    other.load_index(tmp_path / "writers.index")
    assert other.identify(rows[4]) == matcher.identify(rows[4])
    chosen = Matcher(0.5, SignatureIndex(backend="numpy"))
    chosen.load_index(tmp_path / "writers.index")
    assert chosen.index.backend == "numpy"
    assert Matcher().identify(rows[4], other.index, count=1) == matcher.identify(rows[4], count=1)
    with pytest.raises(SignVerError, match="another extractor"):
        Matcher(0.5, SignatureIndex("model-b")).load_index(tmp_path / "writers.index")
