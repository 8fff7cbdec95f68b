"""Trivial cues against the label: found where they are planted, and in sets that are known to leak."""

import io

import numpy as np
import pytest
from PIL import Image

from training.data import leaks, signatures
from training.data.__main__ import main
from training.data.check import check_dataset


def grey(paper=255, ink=40, size=(60, 120)):
    pixels = np.full(size, paper, np.uint8)
    pixels[20:24, 20:90] = ink
    return pixels


def test_separation_is_the_area_under_the_curve():
    forged = [False, False, True, True]
    assert leaks.separation([1, 2, 3, 4], forged) == 1.0
    assert leaks.separation([4, 3, 2, 1], forged) == 1.0
    assert leaks.separation([1, 1, 1, 1], forged) == 0.5
    assert leaks.separation([1, 3, 2, 4], forged) == 0.75
    assert leaks.separation([1, 2], [True, True]) == 0.5


@pytest.mark.parametrize(
    ("cue", "options"),
    [
        ("paper grey", {"paper": 240}),
        ("ink grey", {"ink": 90}),
        ("file mode", {"mode": "RGB"}),
        ("file size", {"level": 0}),
    ],
)
def test_a_planted_leak_is_named(tmp_path, cue, options):
    paths, forged = [], []
    rng = np.random.default_rng(0)
    for number in range(20):
        label = number % 2 == 1
        chosen = dict(options) if label else {}
        mode, level = chosen.pop("mode", "L"), chosen.pop("level", 9)
        pixels = grey(**chosen)
        pixels[40:44, 10 : 10 + int(rng.integers(5, 60))] = chosen.get("ink", 40)
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).convert(mode).save(path, compress_level=level)
        paths.append(path)
        forged.append(label)
    found = leaks.of_files(paths, forged)
    assert found[cue] > 0.95
    assert cue in leaks.sentence(found)


def test_check_says_what_cues_tell(tmp_path, capsys):
    path = signatures.write_samples(tmp_path, writers=4)
    findings, _ = check_dataset(tmp_path / "signatures")
    (note,) = [finding for finding in findings if "trivial cues" in finding.message]
    assert note.severity in ("note", "warning")
    assert all(cue in note.message for cue in leaks.PICTURE)
    assert path


def test_raw_cedar_and_dutch_leak_as_they_are_known_to(shared_data):
    raw = sorted((shared_data / "cedar-raw-sample").rglob("*.png"))
    found = leaks.of_files(raw, ["forg" in path.name for path in raw])
    assert found["paper grey"] > 0.99
    dutch = signatures.read_signatures(shared_data / "sigcomp2011-dutch")
    found = leaks.of_files([file.path for file in dutch], [file.label == signatures.FORGED for file in dutch])
    assert found["ink grey"] > 0.85


def test_convert_writes_the_leaks_of_the_published_files_into_the_card(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "set"
    for writer in range(4):
        for kind, paper in (("genuine", 255), ("forged", 235)):
            (folder / str(writer) / kind).mkdir(parents=True)
            for number in range(2):
                stream = io.BytesIO()
                pixels = grey(paper)
                pixels[50, : 10 + 10 * number + writer] = 30
                Image.fromarray(pixels).save(stream, "PNG")
                (folder / str(writer) / kind / f"{number}.png").write_bytes(stream.getvalue())
    output = tmp_path / "out"
    command = [
        "data",
        "convert",
        "signatures",
        f"--input={folder}",
        f"--output={output}",
        "--eval_fraction=0.5",
    ]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    assert "paper grey 1.00" in capsys.readouterr().out
    assert "paper grey 1.00" in (output / "dataset_card.json").read_text()
    findings, _ = check_dataset(output)
    (note,) = [finding for finding in findings if "trivial cues" in finding.message]
    assert "paper grey 0.50" in note.message  # whitened
