"""`python -m export bundle`: complete, the same bytes every time, signed, in other languages."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import commands
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from export import bundle as maker
from export import cards, csharp, measure, quantize, samples
from signver import SignVerError
from signver.bundle import Bundle
from signver.proof import verify
from training.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs" / "sdk.md"


def command(*options, code=0):
    done = commands.run("export", *options, code=code)
    return done.stdout + done.stderr


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts_of(folder):
    source = Bundle.load(folder)
    return [
        maker.Part(kind, source.model_path(kind), maker.entry_of(source, kind))
        for kind in source.manifest["models"]
    ]


@pytest.fixture(scope="session")
def small(whole_bundle):
    """The cleaner alone, as a part of a bundle: quick to write and to prove."""
    return [part for part in parts_of(whole_bundle) if part.kind == "cleaner"]


# What is in it


def test_it_holds_all_that_a_program_needs(whole_bundle):
    names = {str(name) for name in contents(whole_bundle)}
    cards_ = {f"cards/{kind}.md" for kind in maker.KINDS}
    assert names >= {"manifest.json", "NOTICE.md", "golden/golden.json", *cards_}
    models = Bundle.load(whole_bundle).manifest["models"]
    detector, extractor = models["detector"], models["extractor"]
    assert detector["inputs"][0] == {
        "name": "image",
        "dtype": "uint8",
        "shape": [1, "height", "width", 3],
        "layout": "batch height width channel",
        "range": [0, 255],
        "meaning": "A page of any size, RGB, rows from the top.",
    }
    assert detector["labels"] == {"1": "signature", "2": "initials", "3": "redaction", "4": "date"}
    assert set(detector["thresholds"]["score"]["figures"]) == {"AP", "AP50", "precision", "recall"}
    assert extractor["outputs"][0]["shape"] == ["batch", 16]
    assert "eer_skilled" in extractor["thresholds"]["cosine"]["figures"]
    assert models["cleaner"]["validation"]["figures"]["ink_f1"] > 0
    for kind, model in models.items():
        assert re.fullmatch("[0-9a-f]{64}", model["run"]["checkpoint_sha256"])
        assert model["run"]["data"]["train"]["records"] > 0
        card = (whole_bundle / "cards" / f"{kind}.md").read_text()
        assert model["sha256"] in card
        assert model["run"]["data"]["train"]["fingerprint"] in card
    assert sum(len(content) for content in contents(whole_bundle).values()) < 20_000_000


def test_nothing_in_it_says_where_or_when_it_was_made(whole_bundle, detector_run):
    for name, content in contents(whole_bundle).items():
        assert str(detector_run.parent).encode() not in content, name
        assert str(ROOT).encode() not in content, name


@pytest.mark.slow
def test_the_same_models_give_the_same_bytes(whole_bundle, tmp_path):
    parts = parts_of(whole_bundle)
    maker.write(tmp_path / "again", parts, "Apache-2.0", seed=5)
    assert contents(tmp_path / "again") == contents(whole_bundle)


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(cleaner_run, tmp_path):
    options = [f"--cleaner={cleaner_run}", "--synthetic=4", "--minimum_detections=1"]
    first = command("bundle", *options, f"--output={tmp_path / 'one'}")
    assert "golden vectors PASSED" in first
    command("bundle", *options, f"--output={tmp_path / 'two'}")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(Bundle.load(tmp_path / "one").manifest["models"]) == {"cleaner"}
    # Models that another bundle has are taken over as they are, also from the one that is replaced.
    command("bundle", f"--cleaner={tmp_path / 'two'}", f"--output={tmp_path / 'two'}")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    missing = ["bundle", f"--extractor={tmp_path / 'two'}", f"--output={tmp_path / 'three'}"]
    assert "this bundle has no extractor" in command(*missing, code=2)
    (tmp_path / "two" / "cleaner.onnx").write_bytes(b"nothing")
    damaged = ["bundle", f"--cleaner={tmp_path / 'two'}", f"--output={tmp_path / 'three'}"]
    assert "7 bytes; the manifest says" in command(*damaged, code=2)
    assert not (tmp_path / "three").exists()


def test_mistakes_are_said(cleaner_run, tmp_path):
    output = f"--output={tmp_path / 'bundle'}"
    assert "give --detector, --cleaner, --extractor" in command("bundle", output, code=2)
    assert "which is a cleaner" in command(
        "bundle", f"--detector={cleaner_run}", output, "--synthetic=1", code=2
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    refused = command("bundle", f"--cleaner={cleaner_run}", f"--output={tmp_path / 'mine'}", code=2)
    assert "exists and is no bundle" in refused
    (tmp_path / "mine" / "manifest.json").write_text('{"name": "of a web page"}')
    refused = command("bundle", f"--cleaner={cleaner_run}", f"--output={tmp_path / 'mine'}", code=2)
    assert "exists and is no bundle" in refused
    assert "name a bundle, or --onnx" in command("validate", code=2)
    assert not (tmp_path / "bundle").exists()


def test_the_command_proves_a_bundle_and_refuses_a_damaged_one(bundle):
    assert "PASSED" in command("validate", bundle)
    (bundle / "cleaner.onnx").write_bytes(b"nothing")
    assert "cleaner.onnx: 7 bytes; the manifest says" in command("validate", bundle, code=2)


# Signature


def key_files(folder, key):
    private, public = folder / "key.pem", folder / "public.pem"
    pem = serialization.Encoding.PEM
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize(
    "make", [ed25519.Ed25519PrivateKey.generate, lambda: ec.generate_private_key(ec.SECP256R1())]
)
def test_a_signed_bundle_loads_with_its_key_and_no_other(small, tmp_path, make):
    private, public = key_files(tmp_path, make())
    signed = tmp_path / "signed"
    maker.write(signed, small, "Apache-2.0", 5, str(private))
    assert Bundle.load(signed, public_key=public).has("cleaner")
    assert verify(signed, public_key=public).strangers == []
    (tmp_path / "other").mkdir()
    _, other = key_files(tmp_path / "other", make())
    with pytest.raises(SignVerError, match="no signature of this manifest"):
        Bundle.load(signed, public_key=other)
    text = (signed / "manifest.json").read_text()
    (signed / "manifest.json").write_text(text.replace("Apache-2.0", "MIT"))
    assert Bundle.load(signed).has("cleaner")
    with pytest.raises(SignVerError, match="no signature of this manifest"):
        Bundle.load(signed, public_key=public)


def test_openssl_verifies_the_signature_too(small, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    private, public = key_files(tmp_path, ed25519.Ed25519PrivateKey.generate())
    signed = tmp_path / "signed"
    maker.write(signed, small, "Apache-2.0", 5, str(private))
    options = ["-verify", "-pubin", "-inkey", public, "-rawin", "-in", signed / "manifest.json"]
    done = subprocess.run(
        ["openssl", "pkeyutl", *map(str, options), "-sigfile", str(signed / "manifest.json.sig")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Signature Verified Successfully" in done.stdout


def test_an_asked_for_signature_that_is_missing_or_a_wrong_key_is_said(small, whole_bundle, tmp_path):
    _, public = key_files(tmp_path, ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(SignVerError, match="not signed, and a signature is asked for"):
        Bundle.load(whole_bundle, public_key=public)
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(SignVerError, match=r"junk\.pem: expected a PEM file of an Ed25519 or ECDSA key"):
        Bundle.load(whole_bundle, public_key=tmp_path / "junk.pem")
    with pytest.raises(SignVerError, match="cannot read this key"):
        Bundle.load(whole_bundle, public_key=tmp_path / "none.pem")
    private, _ = key_files(tmp_path, rsa.generate_private_key(65537, 2048))
    with pytest.raises(UserError, match=r"--sign .*found RSAPrivateKey"):
        maker.write(tmp_path / "signed", small, "Apache-2.0", 5, str(private))
    assert not (tmp_path / "signed").exists()


# 8 bits


@pytest.mark.slow
def test_quantised_models_ship_where_they_pay_and_say_what_they_cost(whole_bundle, tmp_path):
    options = ["--models", "cleaner", "extractor", "--count=6", "--minimum_speedup=0", "--max_cleaner_loss=1"]
    text = command(
        "quantize", whole_bundle, f"--output={tmp_path / 'int8'}", *options, "--max_extractor_loss=-1"
    )
    made = Bundle.load(tmp_path / "int8")
    assert {kind: model["precision"] for kind, model in made.manifest["models"].items()} == {
        "detector": "float32",
        "cleaner": "int8",
        "extractor": "float32",
    }
    graph = onnx.load(str(made.model_path("cleaner"))).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    weights = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.INT8 in weights
    assert (
        made.model_path("cleaner").stat().st_size
        < Bundle.load(whole_bundle).model_path("cleaner").stat().st_size
    )
    assert "extractor  float32: eer_skilled gets worse by" in text
    card = (tmp_path / "int8" / "cards" / "extractor.md").read_text()
    assert "| ships | float32: eer_skilled gets worse by" in card
    assert verify(tmp_path / "int8", threads=1).passed
    assert made.model_path("detector").read_bytes() == (whole_bundle / "detector.onnx").read_bytes()


def test_nothing_is_written_where_nothing_pays(whole_bundle, tmp_path):
    options = ["--models", "extractor", "--count=6", "--minimum_speedup=1000"]
    text = command("quantize", whole_bundle, f"--output={tmp_path / 'int8'}", *options, code=1)
    assert "int8 pays for none of them" in text
    assert re.search(r"times as fast, 1000 is asked for", text)
    assert not (tmp_path / "int8").exists()


def test_an_int8_model_keeps_its_metadata_and_its_bytes(whole_bundle, tmp_path):
    source = whole_bundle / "extractor.onnx"
    rng = np.random.default_rng(1)
    feeds = [{"image": rng.random((1, 192, 384, 1), np.float32)} for _ in range(4)]
    quantize.quantise(source, tmp_path / "one.onnx", feeds)
    quantize.quantise(source, tmp_path / "two.onnx", feeds)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    before, after = onnx.load(str(source)), onnx.load(str(tmp_path / "one.onnx"))
    assert {e.key: e.value for e in before.metadata_props} == {e.key: e.value for e in after.metadata_props}
    assert (after.ir_version, after.opset_import[0].version) == (8, 17)


def test_the_gate_asks_for_both():
    limits = type("Options", (), {"max_cleaner_loss": 0.01, "minimum_speedup": 1.1})
    before = {"ink_f1": 0.9, "ms": 10.0}
    assert quantize._reasons("cleaner", before, {"ink_f1": 0.895, "ms": 5.0}, limits) == []
    assert "gets worse" in quantize._reasons("cleaner", before, {"ink_f1": 0.8, "ms": 5.0}, limits)[0]
    assert "times as fast" in quantize._reasons("cleaner", before, {"ink_f1": 0.9, "ms": 9.9}, limits)[0]
    assert len(quantize._reasons("cleaner", before, {"ink_f1": float("nan"), "ms": 20.0}, limits)) == 2


def test_real_signatures_are_measured_by_writer_and_label(cleaner_run, whole_bundle):
    from training.data.tfrecord import read_pages

    pages = list(read_pages(f"{cleaner_run.parent}/data/train*"))
    drawn = samples.drawn_of(pages)
    assert len({writer for _, writer, _ in drawn}) == len({page.document for page in pages})
    found = measure.extractor(whole_bundle / "extractor.onnx", measure.signature_set(3, 1))
    assert 0 <= found["eer_random"] <= 1


def test_a_detector_is_measured_by_the_names_of_its_classes(whole_bundle, tmp_path):
    model = onnx.load(str(whole_bundle / "detector.onnx"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    pages = list(samples.pages(6, 3))
    found = measure.detector(whole_bundle / "detector.onnx", pages, 0.05)
    assert found["AP50"] > 0.05
    # The same network under other names: what it calls a signature now is what it called a date, and no page
    # of the world has a stamp.
    for names, wanted in (
        ({"1": "Signature", "2": "initials", "3": "redaction", "4": "DATE"}, found),
        ({"1": "stamp", "2": "seal", "3": "crest", "4": "logo"}, {}),
    ):
        onnx.helper.set_model_props(model, {**metadata, "signver.classes": json.dumps(names)})
        onnx.save(model, str(tmp_path / "renamed.onnx"))
        assert measure.detector(tmp_path / "renamed.onnx", pages, 0.05) == wanted
    order = {1: "date", 2: "signature", 3: "initials", 4: "redaction"}
    numbers = {name: label for label, name in order.items()}
    renumbered = [
        dataclasses.replace(
            page,
            boxes=tuple(
                dataclasses.replace(box, label=numbers[measure.CLASSES[box.label]]) for box in page.boxes
            ),
        )
        for page in pages
    ]
    assert measure.detector(whole_bundle / "detector.onnx", renumbered, 0.05, order) == found
    alone = measure.detector(whole_bundle / "detector.onnx", pages, 0.05, {1: "signature"})
    assert alone["recall"] >= 0


# Other languages


def test_the_docs_show_the_generated_program(whole_bundle, tmp_path):
    target = tmp_path / "Program.cs"
    command("csharp", whole_bundle, f"--output={target}")
    shown = re.search(r"```csharp\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == target.read_text(), "put the output of `python -m export csharp` into docs/sdk.md"


def test_the_program_follows_the_manifest(whole_bundle):
    manifest = json.loads((whole_bundle / "manifest.json").read_text())
    manifest["models"]["cleaner"]["outputs"][0]["name"] = "clean_ink"
    source = csharp.program(manifest)
    assert 'CleanInk = Values<float>(found, "clean_ink")' in source
    assert 'Value("image", image, imageShape)' in source
    del manifest["models"]["detector"]
    assert "RunDetector" not in csharp.program(manifest)


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory):
    """tests/node with its packages installed from the registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node and npm on this machine")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "tests" / "node", folder, dirs_exist_ok=True, ignore=lambda *_: ["node_modules"])
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm cannot install the packages of tests/node: {done.stderr.strip()[-300:]}")
    return folder


def node(folder, bundle):
    return subprocess.run(
        ["node", "prove.mjs", str(bundle)], cwd=folder, capture_output=True, text=True, timeout=600
    )


def test_node_gets_the_same_answers(node_modules, whole_bundle):
    done = node(node_modules, whole_bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("detector heads raw_logits", "cleaner square output", "extractor ink embedding"):
        assert f"ok     {name}" in done.stdout
    assert "ok     matcher genuine decision (genuine)" in done.stdout
    assert "ok     matcher other decision (not genuine)" in done.stdout
    for name in ("cleaner crop grey levels", "extractor reference ink", "page to decision decision"):
        assert f"ok     {name}" in done.stdout
    cases = json.loads((whole_bundle / "golden" / "golden.json").read_text())["cases"]
    assert f"{len(cases)} cases, 0 differences too large" in done.stdout


def test_node_refuses_other_bytes_and_finds_other_answers(node_modules, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["models"]["extractor"]["thresholds"]["cosine"]["value"] = 0.99999
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = node(node_modules, bundle)
    assert done.returncode == 1
    assert "FAILED matcher genuine decision" in done.stdout
    content = (bundle / "cleaner.onnx").read_bytes()
    (bundle / "cleaner.onnx").write_bytes(content[:-1] + b"x")
    done = node(node_modules, bundle)
    assert done.returncode == 2
    assert "cleaner.onnx: not the bytes of the manifest" in done.stderr


# Package


def test_the_wheel_ships_the_default_models(whole_bundle, tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("signver", "training", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(whole_bundle, source / "models" / "default")
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(tmp_path / "wheel"), str(source)], check=True, timeout=300)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    assert contents(tmp_path / "site" / "signver" / "default_models") == contents(whole_bundle)
    code = "from signver.bundle import Bundle; print(Bundle.load().path)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip().endswith("signver/default_models"), done.stderr


def test_a_card_says_where_a_run_was_not_evaluated(whole_bundle):
    entry = Bundle.load(whole_bundle).manifest["models"]["detector"]
    assert entry["validation"]["figures"] == {}
    assert "The run recorded no evaluation." in cards.card("detector", entry)
