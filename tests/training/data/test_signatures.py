"""Signature sets: every layout that is around, whitening, splits by writer."""

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.data import __main__ as main
from training.data import check, signatures, tfrecord
from training.errors import UserError


def draw(path, seed, paper=255, mode="L"):
    image = Image.new("L", (90, 60), paper)
    rng = np.random.default_rng(seed)
    ImageDraw.Draw(image).line([tuple(point) for point in rng.integers(10, 50, (6, 2)).tolist()], 20, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


def convert(folder, output, *options):
    main.convert(
        main.parse_arguments(["convert", "signatures", f"--input={folder}", f"--output={output}", *options])
    )
    return {split: list(tfrecord.read_pages(str(output / f"{split}*"))) for split in ("train", "eval")}


def faults(folder):
    """Findings but the line on trivial cues, which a handful of pictures cannot decide."""
    return [finding for finding in check.check_dataset(folder)[0] if "trivial cues" not in finding.message]


def by_writer(pages):
    found = {}
    for page in pages:
        label = signatures.CLASSES[page.boxes[0].label]
        found.setdefault(page.document, []).append(label)
    return {writer: sorted(labels) for writer, labels in found.items()}


def test_cedar_is_split_by_signvers_signers_and_whitened(tmp_path):
    for signer in (1, 2, 3, 51):
        draw(tmp_path / f"in/full_org/original_{signer}_1.png", signer, 240)
        draw(tmp_path / f"in/full_forg/forgeries_{signer}_1.png", 100 + signer, 252, "RGBA")
    found = convert(tmp_path / "in", tmp_path / "set")
    both = ["forged", "genuine"]
    assert by_writer(found["train"]) == {"1": both, "3": both}
    assert by_writer(found["eval"]) == {"2": both, "51": both}
    for page in found["train"]:
        grey = np.asarray(Image.open(io.BytesIO(page.image)))
        assert grey.ndim == 2
        assert (grey == 255).mean() > 0.5
    assert faults(tmp_path / "set") == []


def test_cedar_without_those_signers_is_split_by_share_and_says_so(tmp_path, capsys):
    for signer in (1, 3, 4, 7):
        draw(tmp_path / f"in/full_org/original_{signer}_1.png", signer)
    found = convert(tmp_path / "in", tmp_path / "set", "--eval_fraction=0.4")
    assert not by_writer(found["train"]).keys() & by_writer(found["eval"]).keys()
    assert "None of the signers that SignVer holds out is here" in capsys.readouterr().out


def test_writer_folders_and_the_kaggle_layout(tmp_path):
    draw(tmp_path / "a/001/genuine/x.png", 1)
    draw(tmp_path / "a/001/forged/y.png", 2)
    draw(tmp_path / "a/002/genuine/x.png", 3)
    assert {(f.document, f.label) for f in signatures.read_signatures(tmp_path / "a")} == {
        ("001", 1), ("001", 2), ("002", 1),
    }  # fmt: skip
    draw(tmp_path / "k/train/001/a.png", 1)
    draw(tmp_path / "k/train/001_forg/b.png", 2)
    draw(tmp_path / "k/test/001/a.png", 1)
    files = signatures.read_signatures(tmp_path / "k")
    assert sorted((f.document, f.label) for f in files) == [("001", 1), ("001", 1), ("001", 2)]


def test_a_folder_a_writer_needs_no_forgeries(tmp_path):
    for place in ("own/001/1.png", "own/001/2.png", "own/002/1.png", "own/003/1.png"):
        draw(tmp_path / place, 1)
    files = signatures.read_signatures(tmp_path / "own")
    assert sorted((f.document, f.label) for f in files) == [("001", 1), ("001", 1), ("002", 1), ("003", 1)]
    for place in ("k/train/ada/1.png", "k/train/ada_Forg/1.png", "k/train/bob/1.png", "k/test/bob/2.png"):
        draw(tmp_path / place, 1)
    files = signatures.read_signatures(tmp_path / "k")
    assert sorted((f.document, f.label) for f in files) == [("ada", 1), ("ada", 2), ("bob", 1), ("bob", 1)]
    # One folder, also when it is divided: the files' names.
    for flat, parts in (("flat", ("train", "test")), ("parts", ("training", "validation"))):
        for place in (f"{parts[0]}/ada-1.png", f"{parts[0]}/bob-1.png", f"{parts[1]}/ada-2.png"):
            draw(tmp_path / flat / place, 1)
        files = signatures.read_signatures(tmp_path / flat)
        assert sorted(f.document for f in files) == ["ada", "ada", "bob"]
    draw(tmp_path / "one/mine/ada-1.png", 1)
    assert [f.document for f in signatures.read_signatures(tmp_path / "one")] == ["ada"]


def test_writers_can_be_named(tmp_path):
    for writer in "abc":
        draw(tmp_path / f"in/{writer}/genuine/1.png", ord(writer))
    found = convert(tmp_path / "in", tmp_path / "set", "--eval_writers=b")
    assert by_writer(found["eval"]).keys() == {"b"}
    with pytest.raises(UserError, match="none of z is in"):
        convert(tmp_path / "in", tmp_path / "other", "--eval_writers=z")


def test_an_image_without_ink_is_named(tmp_path):
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    with pytest.raises(UserError, match=r"blank\.png: no ink on it"):
        signatures.read_signatures(tmp_path)[0].load()


def test_real_sets_are_read_whole(shared_data):
    cedar = signatures.read_signatures(shared_data / "cedar")
    assert len(cedar) == 2160
    assert len({file.document for file in cedar}) == 45
    assert signatures.is_cedar(cedar)
    sigcomp = signatures.read_signatures(shared_data / "sigcomp2011-dutch")
    assert len(sigcomp) == 1149
    assert len({file.document for file in sigcomp}) == 43
    raw = [file.load() for file in signatures.read_signatures(shared_data / "cedar-raw-sample")[:6]]
    for page in raw:
        assert np.asarray(Image.open(io.BytesIO(page.image))).max() == 255


def test_synthetic_signatures_are_seeded_and_writers_keep_apart(tmp_path):
    for name in ("one", "two"):
        arguments = [
            f"--output={tmp_path / name}",
            "--writers=3",
            "--eval_writers=2",
            "--genuine=2",
            "--forged=1",
        ]
        command = [sys.executable, "-W", "ignore", "-m", "training.data", "synthesize", "signatures"]
        subprocess.run([*command, *arguments, "--processes=1", "--seed=5"], check=True)
    files = sorted(path.name for path in (tmp_path / "one").glob("*.tfrecord"))
    assert files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    writers = [
        {page.document for page in tfrecord.read_pages(str(tmp_path / "one" / f"{split}*"))}
        for split in ("train", "eval")
    ]
    assert [len(found) for found in writers] == [3, 2]
    assert not writers[0] & writers[1]
    assert faults(tmp_path / "one") == []


def test_a_forgery_is_between_its_model_and_other_writers():
    """Likeness of the blurred shapes: genuine pairs above forgeries, forgeries above strangers."""

    def shape(writer, number, label):
        ink = next(signatures.inked([signatures.synthesize(0, writer, number, label)]))
        small = cv2.resize(255 - ink, (64, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
        soft = cv2.GaussianBlur(small, (0, 0), 1.5)
        return (soft - soft.mean()) / soft.std()

    own = [shape(writer, 0, signatures.GENUINE) for writer in range(20)]
    again = [shape(writer, 1, signatures.GENUINE) for writer in range(20)]
    forged = [shape(writer, 0, signatures.FORGED) for writer in range(20)]
    genuine, skilled, other = (
        np.mean([float((one * two).mean()) for one, two in zip(own, second, strict=True)])
        for second in (again, forged, own[1:] + own[:1])
    )
    assert genuine > skilled + 0.05
    assert skilled > other + 0.05
