"""Each format goes in, and the same pixels and boxes come out, on one side of the split alone."""

import contextlib
import csv
import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from training.data import __main__ as main
from training.data import check, formats, signverod, splits, tfrecord
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


def _boxed(folder, pictures):
    """A YOLO folder with one box on each page; `pictures` says by name what `_image` draws."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name, drawn in pictures.items():
        (folder / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.1")
        _image(drawn).save(folder / "images" / f"{name}.png")
    return folder


def _load(path, boxes=(), max_side=0):
    return formats.PageFile(path, path.name, path.stem, tuple(boxes)).load(max_side)


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
    pages, classes = formats.read_yolo(folder, ["signature", "date"])
    pages = [page.load() for page in pages]
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
    _same(_found(page.load() for page in formats.read_coco(coco, folder / "images")[0]))


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
    page = _load(folder / "images" / "b.png", [Box(*box) for box in BOXES["b"]])
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
    page = _load(_folder(tmp_path / "in") / "images" / "a.png")
    cards = [
        tfrecord.write_dataset(tmp_path / name, {"train": [page]}, {1: "s"}, shards=1, source="x")
        for name in "pq"
    ]
    assert cards[0] == cards[1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "1", "P"])
def test_any_mode_becomes_grey_or_rgb(tmp_path, mode):
    suffix = ".tif" if mode == "CMYK" else ".png"
    _image("z", mode=mode).save(tmp_path / f"z{suffix}")
    page = _load(tmp_path / f"z{suffix}")
    with Image.open(io.BytesIO(page.image)) as image:
        assert image.mode in ("L", "RGB")
        assert (image.width, image.height) == (page.width, page.height) == (120, 80)


def test_turned_and_large_pages_are_put_upright_and_reduced(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    _image("z", (400, 200)).save(tmp_path / "z.jpg", exif=exif)
    page = _load(tmp_path / "z.jpg", max_side=100)
    assert (page.width, page.height) == (50, 100)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("foc33a00-page02_1_jpg.rf.cc3ea50f1aeebb5e.jpg", "foc33a00"),
        ("erk44a00_1_jpg.rf.c0f17ec585b507f8.jpg", "erk44a00"),
        ("gsa_LAK07316-Lease_Z-04.png", "gsa_LAK07316-Lease_Z"),
        ("letter.png", "letter"),
        ("007.png", "007"),
        ("contract7/1.png", "contract7"),
        ("a/contract7/page-01.png", "a/contract7"),
        ("a/letter_2.png", "a/letter"),
        ("train/contract_1.png", "contract"),
        ("images/000001.png", "000001"),
        ("val/contract7/images/2.png", "contract7"),
        ("batch/000123.png", "batch/000123"),
    ],
)
def test_pages_of_a_document_are_recognised(name, document):
    assert splits.document_of(name) == document


def test_pages_that_count_as_one_document_are_said_with_the_way_out(tmp_path):
    folder = _boxed(tmp_path / "yolo", {f"scan_{number:03d}": f"{number}" for number in range(10)})
    options = ("yolo", f"--input={folder}", "--names=s", f"--output={tmp_path / 'set'}")
    with pytest.raises(UserError, match=r"all 10 pages count as one document, 'scan'.*--document_pattern"):
        _convert(*options)
    _convert(*options, "--document_pattern=(.*)")
    sizes = [len(side) for side in _sides(tmp_path / "set").values()]
    assert min(sizes) > 0
    assert sum(sizes) == 10


def test_categories_of_coco_are_renamed_and_ordered(tmp_path):
    _image("a").save(tmp_path / "a.png")
    _image("b").save(tmp_path / "b.png")
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.png", "width": 120, "height": 80} for n, name in enumerate("ab")
        ],
        "annotations": [{"image_id": n, "category_id": 3 + n, "bbox": [10, 10, 20, 20]} for n in range(2)],
        "categories": [{"id": 3, "name": "day"}, {"id": 4, "name": "handwritten_signature"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    options = (
        "coco",
        f"--annotations={tmp_path / 'a.json'}",
        f"--images={tmp_path}",
        f"--output={tmp_path / 's'}",
    )
    with pytest.raises(UserError, match="has day, handwritten_signature too; --names renames"):
        _convert(*options, "--classes=signature,date")
    with pytest.raises(UserError, match="1 for 2 categories"):
        _convert(*options, "--names=signature")
    _convert(*options, "--names=date,signature", "--classes=signature,date")
    labels = {
        page.name: [box.label for box in page.boxes]
        for side in _sides(tmp_path / "s").values()
        for page in side.values()
    }
    assert labels == {"a.png": [2], "b.png": [1]}


def test_yolo_folders_divided_by_hand_are_read_whole(tmp_path):
    for part in ("train", "valid", "val", "test"):
        (tmp_path / part / "images").mkdir(parents=True)
        _image(part).save(tmp_path / part / "images" / f"{part}.png")
    files, _ = formats.read_yolo(tmp_path, ["signature"])
    assert [file.name for file in files] == ["train.png", "valid.png", "val.png", "test.png"]


def test_a_split_never_divides_a_document():
    pages = [Page(f"{d}-{p}.png", f"doc{d}", b"", 1, 1, ()) for d in range(40) for p in range(3)]
    found = splits.by_document(pages, 0.25, seed=1)
    sides = [{page.document for page in found[split]} for split in ("train", "eval")]
    assert not sides[0] & sides[1]
    assert 4 <= len(sides[1]) <= 18
    assert sum(map(len, found.values())) == 120
    more = splits.by_document([*pages, Page("n", "new", b"", 1, 1, ())], 0.25, seed=1)
    assert {page.document for page in more["eval"]} - {"new"} == sides[1]


def _signverod(folder, rows, corrected=True, pages=((1, "a"), (2, "b"), (1, "c"))):
    """Pages as (published id, name), numbered anew from 1 on in id_new; rows as (id, id_new, box)."""
    folder.mkdir()
    (folder / "categories.csv").write_text("id,name\n1,signature\n2,initials\n")
    tables = {
        "image_ids.csv": [
            ["height", "width", "id", "file_name", "id_new"],
            *([80, 120, old, f"{name}.png", new] for new, (old, name) in enumerate(pages, 1)),
        ]
    }
    for file, entries in rows.items():
        header = ["bbox", "category_id", "image_id", "image_id_new"]
        tables[file] = [header, *([box, 1, old, new] for old, new, box in entries)]
    for file, lines in tables.items():
        with open(folder / file, "w", newline="") as stream:
            csv.writer(stream).writerows(line if corrected else line[:-1] for line in lines)
    for _, name in pages:
        _image(name).save(folder / f"{name}.png")
    return folder


WIDE, FLAT, LARGE = "[0.1, 0.2, 0.3, 0.4]", "[0.5, 0.5, 0.2, 0.1]", "[0.0, 0.0, 0.5, 0.5]"
# Page a is 1 of the first numbering, c is 1 of the second; b stands in both files.
ROWS = {"train.csv": [(1, 1, WIDE), (1, 1, WIDE), (2, 2, FLAT), (1, 3, LARGE)], "test.csv": [(2, 2, FLAT)]}


@pytest.mark.parametrize("corrected", [True, False])
def test_signverod_collisions_doubles_and_leaks_are_repaired(tmp_path, corrected):
    rows = {**ROWS, "test.csv": [*ROWS["test.csv"], (1, 3, FLAT)]}
    annotation = signverod.read_annotation(_signverod(tmp_path / "set", rows, corrected))
    assert {split: [page.name for page in pages] for split, pages in annotation.splits.items()} == {
        "train": ["a.png", "b.png", "c.png"],
        "eval": [],
    }
    first, second, third = annotation.splits["train"]
    assert first.boxes == (Box(0.2, 0.1, pytest.approx(0.6), pytest.approx(0.4), 1),)
    assert len(second.boxes) == 1
    assert third.boxes[0] == Box(0, 0, 0.5, 0.5, 1)
    assert len(third.boxes) == 2
    assert any("1 of the original page ids stand for more than one page" in n for n in annotation.notes)
    assert any("2 pages stand in both train.csv and test.csv" in note for note in annotation.notes)


def test_signverod_collision_that_the_order_does_not_resolve_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"disagree .*image_ids.csv 2, train.csv 2, test.csv 1"):
        signverod.read_annotation(_signverod(tmp_path / "set", ROWS, corrected=False))


def test_signverod_page_of_another_shape_is_refused(tmp_path):
    folder = _signverod(tmp_path / "set", {"train.csv": [(1, 1, WIDE)], "test.csv": [(1, 3, WIDE)]})
    _image("a", (80, 120)).save(folder / "a.png")
    found = signverod.locate(folder, signverod.read_annotation(folder), partial=False)
    with pytest.raises(UserError, match=r"a\.png: is 80x120 upright, but the annotation says 120x80"):
        found["train"][0].load()


def test_absent_pages_are_listed_or_left_out(tmp_path):
    folder = _signverod(tmp_path / "set", {"train.csv": [(1, 1, WIDE)], "test.csv": [(1, 3, WIDE)]})
    (folder / "a.png").unlink()
    annotation = signverod.read_annotation(folder)
    with pytest.raises(UserError, match=r"1 of 3 annotated pages are absent: a\.png"):
        signverod.locate(folder, annotation, partial=False)
    found = signverod.locate(folder, annotation, partial=True)
    assert [page.name for page in found["train"]] == ["b.png"]
    assert [page.load().name for page in found["eval"]] == ["c.png"]
    assert any("1 annotated pages were absent" in note for note in annotation.notes)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("0 0.5 0.5", "expected `class"),
        ("0 a 0.5 0.1 0.1", "expected `class"),
        ("4 0.5 0.5 0.1 0.1", "class 4"),
        ("nan 0.5 0.5 0.1 0.1", "expected `class"),
        ("0 0.5 inf 0.1 0.1", "expected `class"),
        ("0.5 0.5 0.5 0.1 0.1", "expected `class"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
    ],
)
def test_bad_yolo_lines_are_named(tmp_path, label, words):
    folder = _folder(tmp_path / "yolo")
    (folder / "labels").mkdir()
    (folder / "labels" / "b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{label}\n")
    with pytest.raises(UserError, match=r"b\.txt:2") as error:
        formats.read_yolo(folder, ["signature"])
    assert words in str(error.value)


def test_the_command_says_mistakes_in_two_lines(tmp_path):
    command = [sys.executable, "-m", "training.data", "convert", "yolo", f"--input={tmp_path}", "--output=x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no images/" in done.stderr
    assert "Traceback" not in done.stderr


def _convert(*arguments):
    return main.convert(main.parse_arguments(["convert", *map(str, arguments)]))


def _sides(folder):
    return {
        split: {page.name: page for page in tfrecord.read_pages(str(folder / f"{split}*"))}
        for split in ("train", "eval")
    }


def test_equal_images_and_their_documents_stay_on_one_side(tmp_path):
    pictures = {f"d{number}x": "same" if number < 8 else f"{number}" for number in range(12)}
    folder = _boxed(tmp_path / "yolo", pictures)
    for seed in range(4):
        _convert(
            "yolo", f"--input={folder}", "--names=s", f"--output={tmp_path / 'set'}", f"--seed={seed}",
            "--eval_fraction=0.5",
        )  # fmt: skip
        sides = _sides(tmp_path / "set")
        equal = {f"d{number}x.png" for number in range(8)}
        assert equal <= sides["train"].keys() or equal <= sides["eval"].keys()
        assert not [f for f in check.check_dataset(tmp_path / "set")[0] if f.severity == "error"]


def test_records_of_others_are_repaired_reduced_and_divided(tmp_path, capsys):
    images = _folder(tmp_path / "in") / "images"
    pages = {
        name: Page(f"{name}.png", f"{name}.png", (images / f"{name}.png").read_bytes(), 80, 120,
                   tuple(Box(*box) for box in BOXES[name]))
        for name in BOXES
    }  # fmt: skip
    follower = dataclasses.replace(pages["d"], name="a-02.png", document="a-02.png")
    given = {"train": [pages["a"], pages["b"]], "eval": [pages["b"], pages["c"], follower]}
    tfrecord.write_dataset(
        tmp_path / "given", given, {1: "signature", 2: "it's a date"}, shards=1, source="x"
    )
    _convert("tfrecord", f"--input={tmp_path / 'given'}", f"--output={tmp_path / 'set'}", "--max_side=60")
    sides = _sides(tmp_path / "set")
    assert {split: set(found) for split, found in sides.items()} == {
        "train": {"a.png", "b.png", "a-02.png"},
        "eval": {"c.png"},
    }
    assert sides["train"]["a-02.png"].boxes == tfrecord_boxes("d")
    assert (sides["train"]["b.png"].width, sides["train"]["b.png"].height) == (60, 40)
    assert tfrecord.read_label_map(tmp_path / "set" / "label_map.pbtxt")[2] == "it's a date"
    said = capsys.readouterr().out
    assert "1 pages stand in several splits" in said
    assert "1 held-out pages belong to documents with training pages" in said
    assert check.check_dataset(tmp_path / "set")[0] == []


def test_classes_are_numbered_by_name_and_not_by_their_source(tmp_path):
    folder = _folder(tmp_path / "yolo")
    (folder / "labels").mkdir()
    for name in "ab":
        (folder / "labels" / f"{name}.txt").write_text("1 0.5 0.5 0.2 0.1\n0 0.2 0.2 0.1 0.1\n")
    target = tmp_path / "set"
    order = "signature,initials,redaction,date"
    options = ("yolo", f"--input={folder}", "--names=Date,Signature", f"--output={target}")
    _convert(*options, f"--classes={order}")
    assert tfrecord.read_label_map(target / "label_map.pbtxt") == dict(enumerate(order.split(","), start=1))
    pages = [page for side in _sides(target).values() for page in side.values() if page.boxes]
    assert [[box.label for box in page.boxes] for page in pages] == [[1, 4], [1, 4]]
    assert [f for f in check.check_dataset(target)[0] if f.severity == "error"] == []
    with pytest.raises(UserError, match="the source has Date too"):
        _convert(*options, "--classes=signature,initials")


def tfrecord_boxes(name):
    return tuple(Box(*(pytest.approx(side) for side in box[:4]), box[4]) for box in BOXES[name])


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    page = _load(_folder(tmp_path / "in") / "images" / "a.png")
    target = tmp_path / "home"
    tfrecord.write_dataset(target, {"train": [page]}, {1: "s"}, shards=1, source="x")
    tfrecord.write_dataset(target, {"train": [page]}, {1: "s"}, shards=2, source="x")
    assert len(list(target.glob("train*"))) == 2
    (target / "thesis").mkdir()
    with pytest.raises(UserError, match=r"holds other files \(thesis\)"):
        tfrecord.write_dataset(target, {"train": [page]}, {1: "s"}, shards=1, source="x")
    assert (target / "thesis").is_dir()


def test_a_full_disk_is_said_in_two_lines_and_leaves_nothing(tmp_path):
    folder = _folder(tmp_path / "in")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from training.data.__main__ import main; from training.errors import run_command; run_command(main)"
    )
    command = [
        "convert",
        "yolo",
        f"--input={folder}",
        "--names=s",
        f"--output={tmp_path / 'set'}",
        "--shards=1",
    ]
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "option",
    ["--shards=0", "--eval_fraction=2", "--max_side=-1", "--document_pattern=(", "--document_pattern=a",
     "--names=a,,b"],
)  # fmt: skip
def test_senseless_options_are_refused_before_anything_is_read(option, capsys):
    with pytest.raises(SystemExit) as error:
        main.parse_arguments(["convert", "yolo", "--input=x", "--output=y", option])
    assert error.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err


def test_roboflow_polygons_become_their_bounds_and_names_keep_their_numbers(tmp_path):
    folder = _folder(tmp_path / "yolo")
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: {0: signature, 2: date}")
    (folder / "labels" / "a.txt").write_text("2 0.1 0.2 0.5 0.25 0.4 0.6\n")
    files, classes = formats.read_yolo(folder, None)
    assert classes == {1: "signature", 3: "date"}
    assert files[0].boxes == (Box(0.2, 0.1, 0.6, 0.5, 3),)
    (folder / "data.yaml").write_text("names: signature")
    with pytest.raises(UserError, match="expected a list of class names"):
        formats.read_yolo(folder, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_coco_file_is_read_or_refused_and_never_crashes(tmp_path, data):
    path = tmp_path / "damaged.json"
    content = json.loads(_coco(path).read_text())
    table = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    entry = data.draw(st.sampled_from(content[table]))
    key = data.draw(st.sampled_from(sorted(entry)))
    if data.draw(st.booleans()):
        del entry[key]
    else:
        entry[key] = data.draw(JSON)
    path.write_text(json.dumps(content))
    with contextlib.suppress(UserError):
        formats.read_coco(path, tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["categories.csv", "image_ids.csv", "train.csv", "test.csv"]), data=st.data())
def test_damaged_signverod_files_are_read_or_refused_and_never_crash(tmp_path, name, data):
    folder = tmp_path / "set"
    if not folder.exists():
        _signverod(folder, {**ROWS, "test.csv": [(2, 2, FLAT), (1, 3, FLAT)]}, corrected=False)
    sound = (folder / name).read_bytes()
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    try:
        with contextlib.suppress(UserError):
            signverod.read_annotation(folder)
    finally:
        (folder / name).write_bytes(sound)


def _published_columns_alone(source, target):
    """A copy of SignVerOD's CSV files as published, without the corrected ids."""
    target.mkdir()
    for file in ("categories.csv", "image_ids.csv", "train.csv", "test.csv"):
        with open(source / file, newline="") as stream:
            rows = [
                {key: value for key, value in row.items() if not key.endswith("_new")}
                for row in csv.DictReader(stream)
            ]
        with open(target / file, "w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return target


def test_real_signverod_annotation_is_read_whole(shared_data, tmp_path):
    annotation = signverod.read_annotation(shared_data / "signverod")
    pages = [page for split in annotation.splits.values() for page in split]
    assert len(pages) == len({page.name for page in pages}) == 2765
    assert sum(len(page.boxes) for page in pages) == 8022
    assert annotation.classes == signverod.CLASSES
    assert any("320 pages stand in both" in note for note in annotation.notes)
    assert any("2,765 pages and 8,022 distinct boxes" in note for note in annotation.notes)
    divided, moved = splits.separate(annotation.splits)
    documents = [{page.document for page in divided[split]} for split in ("train", "eval")]
    assert not documents[0] & documents[1]
    assert moved > 0
    # The repair from the order of the rows finds what the corrected columns say.
    published = signverod.read_annotation(_published_columns_alone(shared_data / "signverod", tmp_path / "p"))
    assert published.splits == annotation.splits


def test_real_letters_keep_their_bytes_and_boxes(shared_data, tmp_path):
    folder = shared_data / "tobacco800-signatures"
    files, classes = formats.read_yolo(folder, ["signature"])
    tfrecord.write_dataset(
        tmp_path / "set", {"train": (file.load() for file in files)}, classes, shards=2, source="yolo"
    )
    pages = {page.name: page for page in tfrecord.read_pages(str(tmp_path / "set" / "train*"))}
    assert len(pages) == 319
    assert sum(not page.boxes for page in pages.values()) == 22
    for file in files:
        page = pages[file.name]
        assert page.image == file.path.read_bytes()
        assert [box.label for box in page.boxes] == [box.label for box in file.boxes]
        sides = [[(b.ymin, b.xmin, b.ymax, b.xmax) for b in boxes] for boxes in (page.boxes, file.boxes)]
        assert np.allclose(*sides, atol=1e-6)


def test_deep_scans_keep_their_grey_levels(tmp_path):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[np.newaxis].repeat(48, axis=0)
    expected = (255 * ramp).astype(np.uint8)
    kinds = {
        "float": ramp,
        "integer": (65535 * ramp).astype(np.int32),
        "short": (65535 * ramp).astype(np.uint16),
    }
    for name, values in kinds.items():
        path = tmp_path / f"{name}.tiff"
        Image.fromarray(values).save(path)
        found = np.asarray(Image.open(io.BytesIO(_load(path).image)).convert("L"))
        assert np.abs(found.astype(int) - expected).max() <= 6, name
