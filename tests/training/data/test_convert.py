"""Each format goes in, and the same pixels and boxes come out, on one side of the split alone."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from training.data import formats, signverod, splits, tfrecord
from training.data.page import Box, Page
from training.errors import UserError

BOXES = {
    "a": [(0.1, 0.2, 0.3, 0.6, 1)],
    "b": [(0.5, 0.1, 0.6, 0.4, 2), (0.7, 0.5, 0.8, 0.9, 1)],
    "c": [],
    "d": [(0.25, 0.25, 0.5, 0.75, 1)],
}


def _image(name, size=(120, 80), mode="RGB"):
    rng = np.random.default_rng(sum(name.encode()))
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def _folder(tmp_path, suffix=".png"):
    (tmp_path / "images").mkdir(parents=True)
    for name in BOXES:
        _image(name).save(tmp_path / "images" / f"{name}{suffix}")
    return tmp_path


def _found(pages):
    return {page.name[0]: [(b.ymin, b.xmin, b.ymax, b.xmax, b.label) for b in page.boxes] for page in pages}


def _same(found):
    assert found.keys() == BOXES.keys()
    for name, boxes in BOXES.items():
        assert np.allclose(found[name], boxes, atol=1e-6), name


def test_yolo_coco_and_tfrecord_keep_boxes_and_pixels(tmp_path):
    folder = _folder(tmp_path / "yolo")
    (folder / "labels").mkdir()
    for name, boxes in BOXES.items():
        lines = [
            f"{label - 1} {(x0 + x1) / 2} {(y0 + y1) / 2} {x1 - x0} {y1 - y0}"
            for y0, x0, y1, x1, label in boxes
        ]
        (folder / "labels" / f"{name}.txt").write_text("\n".join(lines))
    pages, classes = formats.read_yolo(folder, ["signature", "date"], formats.Options())
    pages = list(pages)
    assert classes == {1: "signature", 2: "date"}
    _same(_found(pages))

    card = tfrecord.write_dataset(tmp_path / "set", {"train": pages}, classes, shards=2, source="test")
    again = list(tfrecord.read_pages(str(tmp_path / "set" / "train*")))
    _same(_found(again))
    for page in again:
        pixels = np.asarray(Image.open(io.BytesIO(page.image)))
        assert np.array_equal(pixels, np.asarray(_image(page.name[0])))
    assert card["splits"]["train"]["boxes"] == {"date": 1, "signature": 3}
    assert tfrecord.read_label_map(tmp_path / "set" / "label_map.pbtxt") == classes

    coco = _coco(tmp_path / "coco.json")
    _same(_found(formats.read_coco(coco, folder / "images", formats.Options())[0]))


def _coco(path):
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "date"}, {"id": 3, "name": "signature"}],
    }
    for number, (name, boxes) in enumerate(BOXES.items()):
        content["images"].append({"id": number, "file_name": f"{name}.png", "width": 120, "height": 80})
        for y0, x0, y1, x1, label in boxes:
            box = [x0 * 120, y0 * 80, (x1 - x0) * 120, (y1 - y0) * 80]
            entry = {"image_id": number, "category_id": {1: 3, 2: 7}[label], "bbox": box}
            content["annotations"].append(entry)
    path.write_text(json.dumps(content))
    return path


def test_tf_models_decoder_reads_our_records(tmp_path):
    import tensorflow as tf
    from official.vision.dataloaders.tf_example_decoder import TfExampleDecoder

    folder = _folder(tmp_path / "in")
    page = formats.load_page(
        folder / "images" / "b.png", [Box(*box) for box in BOXES["b"]], formats.Options()
    )
    tfrecord.write_dataset(
        tmp_path / "set", {"train": [page]}, {1: "signature", 2: "date"}, shards=1, source="x"
    )
    serialised = next(iter(tf.data.TFRecordDataset(tf.io.gfile.glob(str(tmp_path / "set" / "train*")))))
    decoded = TfExampleDecoder().decode(serialised)
    assert np.allclose(decoded["groundtruth_boxes"], [box[:4] for box in BOXES["b"]])
    assert decoded["groundtruth_classes"].numpy().tolist() == [2, 1]
    assert np.array_equal(decoded["image"], np.asarray(_image("b")))
    assert decoded["source_id"].numpy().isdigit()


def test_the_same_pages_give_the_same_bytes(tmp_path):
    page = formats.load_page(_folder(tmp_path / "in") / "images" / "a.png", [], formats.Options())
    cards = [
        tfrecord.write_dataset(tmp_path / name, {"train": [page]}, {1: "s"}, shards=1, source="x")
        for name in "pq"
    ]
    assert cards[0] == cards[1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "1", "P"])
def test_any_mode_becomes_grey_or_rgb(tmp_path, mode):
    suffix = ".tif" if mode == "CMYK" else ".png"
    _image("z", mode=mode).save(tmp_path / f"z{suffix}")
    page = formats.load_page(tmp_path / f"z{suffix}", [], formats.Options())
    with Image.open(io.BytesIO(page.image)) as image:
        assert image.mode in ("L", "RGB")
        assert (image.width, image.height) == (page.width, page.height) == (120, 80)


def test_turned_and_large_pages_are_put_upright_and_reduced(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    _image("z", (400, 200)).save(tmp_path / "z.jpg", exif=exif)
    page = formats.load_page(tmp_path / "z.jpg", [], formats.Options(max_side=100))
    assert (page.width, page.height) == (50, 100)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("foc33a00-page02_1_jpg.rf.cc3ea50f1aeebb5e.jpg", "foc33a00"),
        ("erk44a00_1_jpg.rf.c0f17ec585b507f8.jpg", "erk44a00"),
        ("gsa_LAK07316-Lease_Z-04.png", "gsa_LAK07316-Lease_Z"),
        ("letter.png", "letter"),
        ("007.png", "007"),
    ],
)
def test_pages_of_a_document_are_recognised(name, document):
    assert splits.document_of(name) == document


def test_a_split_never_divides_a_document():
    pages = [Page(f"{d}-{p}.png", f"doc{d}", b"", 1, 1, ()) for d in range(40) for p in range(3)]
    found = splits.by_document(pages, 0.25, seed=1)
    sides = [{page.document for page in found[split]} for split in ("train", "eval")]
    assert not sides[0] & sides[1]
    assert 4 <= len(sides[1]) <= 18
    assert sum(map(len, found.values())) == 120
    more = splits.by_document([*pages, Page("n", "new", b"", 1, 1, ())], 0.25, seed=1)
    assert {page.document for page in more["eval"]} - {"new"} == sides[1]


def _signverod(folder, rows, corrected=True):
    columns = ["height", "width", "id", "file_name", "id_new"][: 5 if corrected else 4]
    folder.mkdir()
    (folder / "categories.csv").write_text("id,name\n1,signature\n2,initials\n")
    with open(folder / "image_ids.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(
            [
                columns,
                *([80, 120, 1, f"{name}.png", new][: len(columns)] for new, name in enumerate("abc", 1)),
            ]
        )
    for file, entries in rows.items():
        with open(folder / file, "w", newline="") as stream:
            header = ["bbox", "category_id", "image_id", "image_id_new"][: 4 if corrected else 3]
            csv.writer(stream).writerows(
                [header, *([box, 1, 1, page][: len(header)] for page, box in entries)]
            )
    for name in "abc":
        _image(name).save(folder / f"{name}.png")


def test_signverod_collisions_doubles_and_leaks_are_repaired(tmp_path):
    rows = {
        "train.csv": [(1, "[0.1, 0.2, 0.3, 0.4]"), (1, "[0.1, 0.2, 0.3, 0.4]"), (2, "[0.5, 0.5, 0.2, 0.1]")],
        "test.csv": [(2, "[0.5, 0.5, 0.2, 0.1]"), (3, "[0.0, 0.0, 0.5, 0.5]")],
    }
    _signverod(tmp_path / "set", rows)
    annotation = signverod.read_annotation(tmp_path / "set")
    assert annotation.splits == {"train": ["1", "2"], "eval": ["3"]}
    assert annotation.boxes["1"] == [Box(0.2, 0.1, pytest.approx(0.6), pytest.approx(0.4), 1)]
    assert len(annotation.boxes["2"]) == 1
    assert any("more than one page" in note for note in annotation.notes)
    assert any("both train.csv and test.csv" in note for note in annotation.notes)


def test_signverod_without_corrected_ids_is_refused(tmp_path):
    rows = {"train.csv": [(1, "[0.1, 0.2, 0.3, 0.4]")], "test.csv": []}
    _signverod(tmp_path / "set", rows, corrected=False)
    with pytest.raises(UserError, match="share 1 ids"):
        signverod.read_annotation(tmp_path / "set")


def test_absent_pages_are_listed_or_left_out(tmp_path):
    rows = {"train.csv": [(1, "[0.1, 0.2, 0.3, 0.4]")], "test.csv": [(3, "[0.1, 0.2, 0.3, 0.4]")]}
    _signverod(tmp_path / "set", rows)
    (tmp_path / "set" / "a.png").unlink()
    annotation = signverod.read_annotation(tmp_path / "set")
    with pytest.raises(UserError, match="absent, the first a"):
        signverod.read_pages(tmp_path / "set", annotation, formats.Options(), partial=False)
    pages, absent = signverod.read_pages(tmp_path / "set", annotation, formats.Options(), partial=True)
    assert absent == ["a.png"]
    assert [page.name for page in pages["eval"]] == ["c.png"]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("0 0.5 0.5", "expected `class"),
        ("0 a 0.5 0.1 0.1", "expected `class"),
        ("4 0.5 0.5 0.1 0.1", "class 4"),
    ],
)
def test_bad_yolo_lines_are_named(tmp_path, label, words):
    folder = _folder(tmp_path / "yolo")
    (folder / "labels").mkdir()
    (folder / "labels" / "b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{label}\n")
    with pytest.raises(UserError, match=r"b\.txt:2") as error:
        list(formats.read_yolo(folder, ["signature"], formats.Options())[0])
    assert words in str(error.value)


def test_the_command_says_mistakes_in_two_lines(tmp_path):
    command = [sys.executable, "-m", "training.data", "convert", "yolo", f"--input={tmp_path}", "--output=x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no images/" in done.stderr
    assert "Traceback" not in done.stderr


def test_real_signverod_annotation_is_read_whole(shared_data):
    annotation = signverod.read_annotation(shared_data / "signverod")
    assert len(annotation.files) == 2765
    assert sum(map(len, annotation.boxes.values())) == 8022
    documents = [
        {splits.document_of(annotation.files[i]) for i in annotation.splits[s]} for s in ("train", "eval")
    ]
    assert not documents[0] & documents[1]
    assert any("320 pages stand in both" in note for note in annotation.notes)


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    page = formats.load_page(_folder(tmp_path / "in") / "images" / "a.png", [], formats.Options())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        tfrecord.write_dataset(tmp_path / "mine", {"train": [page]}, {1: "s"}, shards=1, source="x")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    for _ in range(2):  # its own earlier output may be replaced
        tfrecord.write_dataset(tmp_path / "set", {"train": [page]}, {1: "s"}, shards=1, source="x")
