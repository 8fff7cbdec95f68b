"""Every kind of damage is found and placed; whatever bytes come, the check answers."""

import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from training.data import tfrecord
from training.data.check import check_dataset
from training.data.page import Box, Page

CLASSES = {1: "signature"}


def _page(name, shade=255, boxes=((0.1, 0.1, 0.3, 0.5, 1),)):
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 60), shade, np.uint8)).save(stream, "JPEG")
    return Page(f"{name}.jpg", name, stream.getvalue(), 40, 60, tuple(Box(*box) for box in boxes))


def _write(folder, train, evaluation=None):
    pages = {"train": train, "eval": evaluation or [_page("held-out", 3)]}
    tfrecord.write_dataset(folder, pages, CLASSES, shards=1, source="test")
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("sound") / "set", [_page(str(n), n + 10) for n in range(3)])


def test_a_sound_set_has_no_finding(sound):
    assert check_dataset(sound) == ([], {"pages": 4, "boxes": 4, "shards": 2})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": b"\xff\xd8\xff\xe0 no picture"}, "broken image"),
        ({"height": 50}, "is 60x40, the record says 60x50"),
        ({"boxes": (Box(0.1, 0.1, 0.3, 1.2, 1),)}, "20.0% of the page beyond"),
        ({"boxes": (Box(0.3, 0.1, 0.3, 0.5, 1),)}, "has no area"),
        ({"boxes": (Box(0.1, 0.1, 0.3, 0.5, 7),)}, "unknown class 7"),
        ({"boxes": (Box(float("nan"), 0.1, 0.3, 0.5, 1),)}, "no number"),
    ],
)
def test_each_fault_is_placed(tmp_path, change, words):
    bad = dataclasses.replace(_page("bad", 77), **change)
    findings, _ = check_dataset(_write(tmp_path / "set", [_page("good"), bad]))
    errors = [finding for finding in findings if finding.severity == "error"]
    assert len(errors) == 1, findings
    assert errors[0].record == 1
    assert errors[0].file == "train-00000-of-00001.tfrecord"
    assert words in errors[0].message


def test_truncated_jpeg_is_found(tmp_path):
    page = _page("cut", 120)
    findings, _ = check_dataset(_write(tmp_path / "set", [dataclasses.replace(page, image=page.image[:-40])]))
    assert any("broken image" in finding.message for finding in findings)


def test_the_same_image_and_document_in_two_splits(tmp_path):
    findings, _ = check_dataset(_write(tmp_path / "set", [_page("one", 9)], [_page("two", 9)]))
    assert "in another split" in findings[0].message
    findings, _ = check_dataset(
        _write(tmp_path / "other", [_page("one", 9)], [dataclasses.replace(_page("one", 8))])
    )
    assert "has pages in eval and train" in findings[0].message


def test_equal_pixels_in_other_bytes_are_found(tmp_path):
    page = _page("one", 9)
    stream = io.BytesIO()
    Image.open(io.BytesIO(page.image)).save(stream, "PNG")
    findings, _ = check_dataset(
        _write(tmp_path / "set", [page], [dataclasses.replace(page, document="two", image=stream.getvalue())])
    )
    assert [(finding.severity, finding.record) for finding in findings] == [("error", 0)]
    assert "the same image as eval-00000-of-00001.tfrecord, record 0, in another split" in findings[0].message


def _rewrite(folder, change):
    """Applies `change` to the tf.Examples of the training shard, and drops the card that would tell."""
    shard = next(folder.glob("train*"))
    examples = [tf.train.Example.FromString(text.numpy()) for text in tf.data.TFRecordDataset(str(shard))]
    for example in examples:
        change(example.features.feature)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    (folder / tfrecord.CARD).unlink()
    return folder


@pytest.mark.parametrize(
    ("source_id", "record", "words"),
    [(b"5", 1, "has the image/source_id of train"), (b"letter", 0, "needs a number"), (b"", 0, "a number")],
)
def test_source_ids_that_evaluation_cannot_use_are_found(tmp_path, source_id, record, words):
    def change(feature):
        feature["image/source_id"].bytes_list.value[:] = [source_id]

    folder = _rewrite(_write(tmp_path / "set", [_page("one", 9), _page("two", 40)]), change)
    errors = [finding for finding in check_dataset(folder)[0] if finding.severity == "error"]
    assert errors[0].record == record
    assert words in errors[0].message


def test_side_files_and_shards_that_are_missing_or_too_many_are_named(tmp_path):
    folder = tmp_path / "set"
    pages = {"train": [_page("one", 9), _page("two", 40)], "eval": [_page("three", 80)]}
    tfrecord.write_dataset(folder, pages, CLASSES, shards={"train": 2}, source="test")
    (folder / "train-00001-of-00002.tfrecord").rename(folder / "train-00007-of-00009.tfrecord")
    listed = {finding.file: finding.message for finding in check_dataset(folder)[0]}
    assert "missing" in listed["train-00001-of-00002.tfrecord"]
    assert "not listed in the card" in listed["train-00007-of-00009.tfrecord"]
    (folder / "train-00007-of-00009.tfrecord").unlink()
    for name in (tfrecord.CARD, tfrecord.LABEL_MAP):
        (folder / name).unlink()
    found = {(finding.severity, finding.file) for finding in check_dataset(folder)[0]}
    assert found == {
        ("error", "train-00001-of-00002.tfrecord"),
        ("warning", tfrecord.CARD),
        ("warning", tfrecord.LABEL_MAP),
    }


def test_no_box_at_all_is_an_error(tmp_path):
    folder = _write(tmp_path / "set", [_page("one", 9, ())], [_page("two", 40, ())])
    assert "no box on any page" in check_dataset(folder)[0][0].message


def test_broken_frames_are_told_apart_and_placed(tmp_path, sound):
    shard = next(sound.glob("train*")).read_bytes()
    for name, content, words in (
        ("cut", shard[:-10], "truncated"),
        ("flip", shard[:-10] + bytes([shard[-10] ^ 255]) + shard[-9:], "checksum"),
        ("empty", b"", "empty"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train-00000-of-00001.tfrecord").write_bytes(content)
        findings, _ = check_dataset(folder)
        found = [finding for finding in findings if words in finding.message]
        assert found, (name, findings)
        assert found[0].record == (None if name == "empty" else 2)


def test_a_changed_shard_differs_from_its_card(tmp_path, sound):
    folder = _write(tmp_path / "set", [_page("one")])
    (folder / "train-00000-of-00001.tfrecord").write_bytes(next(sound.glob("train*")).read_bytes())
    findings, _ = check_dataset(folder)
    assert any("SHA-256 differs" in finding.message for finding in findings)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_found_and_never_crashes(tmp_path_factory, sound, data):
    shard = bytearray(next(sound.glob("train*")).read_bytes())
    place = data.draw(st.integers(0, len(shard) - 1))
    if data.draw(st.booleans()):
        shard = shard[:place]
    else:
        shard[place] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "train-00000-of-00001.tfrecord").write_bytes(bytes(shard))
    for name in (tfrecord.CARD, tfrecord.LABEL_MAP):
        (folder / name).write_bytes((sound / name).read_bytes())
    findings, _ = check_dataset(folder)
    assert any(finding.severity == "error" for finding in findings)


def test_the_command_exits_with_one_on_errors_and_zero_without(tmp_path, sound):
    def run(folder, *options):
        command = [sys.executable, "-m", "training.data", "check", str(folder), *options]
        return subprocess.run(command, capture_output=True, text=True)

    assert run(sound).returncode == 0
    bad = _write(tmp_path / "set", [dataclasses.replace(_page("bad"), boxes=(Box(0.3, 0.1, 0.3, 0.5, 1),))])
    done = run(bad, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["record"] == 0
    assert run(tmp_path / "nowhere").returncode == 2
