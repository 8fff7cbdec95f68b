"""A bundle is what its manifest says, or it is refused; a seeded mutator damages it in fifty ways."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys

import jsonschema
import numpy as np
import onnx
import pytest

from signver import SignVerError
from signver import bundle as bundles
from signver import manifest as manifests
from signver.bundle import Bundle, default_bundle
from signver.golden import Golden
from signver.onnx_file import read_header
from signver.proof import main, verify

SCHEMA = json.loads(manifests.SCHEMA.read_text())
DAMAGED = 50
SUPPORTED = {
    *("$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum", "properties"),
    *("required", "additionalProperties", "propertyNames", "items", "pattern", "minimum", "maximum"),
    *("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
}


def read(bundle):
    return json.loads((bundle / "manifest.json").read_text())


def write(bundle, manifest):
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def rehash(bundle):
    """Makes the manifest fit the files, as whoever tampers without a key would."""
    manifest = read(bundle)
    for name, entry in manifests.listed(manifest).items():
        content = (bundle / name).read_bytes()
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write(bundle, manifest)


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def at(value, path):
    for key in path:
        value = value[key]
    return value


# A real bundle


def test_a_bundle_gives_its_models_with_the_manifests_thresholds(whole_bundle):
    bundle = Bundle.load(whole_bundle)
    models = bundle.manifest["models"]
    assert [bundle.has(kind) for kind in ("detector", "cleaner", "extractor", "verifier")] == [1, 1, 1, 0]
    assert bundle.detector(1).score_threshold == models["detector"]["thresholds"]["score"]["value"] == 0.1
    assert bundle.detector(1).class_names[1] == "signature"
    cosine = models["extractor"]["thresholds"]["cosine"]["value"]
    assert bundle.extractor(1).threshold == bundle.matcher().threshold == cosine
    assert bundle.cleaner(1).clean(np.full((30, 80), 255, np.uint8)).shape == (84, 224)


def test_the_manifest_keeps_the_published_schema(whole_bundle):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(read(whole_bundle))


def test_the_sdk_understands_every_keyword_of_the_schema():
    def keywords(schema, names=False):
        for key, value in schema.items():
            yield from () if names else (key,)
            if isinstance(value, dict):
                yield from keywords(value, key in ("properties", "$defs") and not names)

    assert set(keywords(SCHEMA)) <= SUPPORTED


def test_the_sdk_and_jsonschema_agree_on_edited_manifests(whole_bundle):
    original, random_ = read(whole_bundle), random.Random(7)
    values = [None, True, -1, 0.5, 1e30, "", "../x", "x" * 5000, [], {}, ["a"], {"a": 1}, 17, "float32"]
    oracle, verdicts = jsonschema.Draft202012Validator(SCHEMA), []
    places = list(leaves(original))
    for _ in range(150):
        manifest = json.loads(json.dumps(original))
        *parents, last = random_.choice(places)
        inside = random_.randrange(len(parents) + 1)
        holder, key = (at(manifest, parents[:inside]), [*parents, last][inside])
        holder[key] = random_.choice(values)
        try:
            manifests._check_value(manifest, SCHEMA, SCHEMA, "manifest")
            verdicts.append(True)
        except SignVerError:
            verdicts.append(False)
        assert verdicts[-1] == oracle.is_valid(manifest), (parents, key, holder[key])
    assert 10 < sum(verdicts) < 140


def test_without_a_default_bundle_the_error_says_how_to_name_one(monkeypatch):
    monkeypatch.setattr(bundles, "default_bundle", lambda: None)
    with pytest.raises(SignVerError, match=r"name a bundle, as Bundle\.load"):
        Bundle.load()


def test_the_default_bundle_is_found_beside_the_package_and_inside_it(whole_bundle, tmp_path, monkeypatch):
    package = tmp_path / "site" / "signver"
    package.mkdir(parents=True)
    monkeypatch.setattr(bundles, "__file__", str(package / "bundle.py"))
    assert default_bundle() is None
    checkout = tmp_path / "site" / "models" / "default"
    shutil.copytree(whole_bundle, checkout)
    assert default_bundle() == checkout
    installed = package / "default_models"
    shutil.copytree(whole_bundle, installed)
    assert default_bundle() == installed
    assert Bundle.load().path == installed


def test_a_bundle_without_a_model_says_which_it_has(bundle):
    manifest = read(bundle)
    del manifest["models"]["cleaner"]
    write(bundle, manifest)
    with pytest.raises(SignVerError, match="holds no cleaner; it holds detector, extractor"):
        Bundle.load(bundle).cleaner()


# The proof


def test_the_proof_passes_here_and_reaches_the_decision(whole_bundle):
    proof = verify(whole_bundle, threads=1)
    assert proof.passed, proof.text()
    names = {check.name for check in proof.checks}
    assert {"page to decision decision", "matcher genuine decision", "cleaner crop grey levels"} <= names
    assert proof.strangers == []


def test_the_golden_vectors_hold_boxes_ink_and_both_decisions(whole_bundle):
    index = Golden(Bundle.load(whole_bundle)).index
    boxes = [case["boxes"] for case in index["cases"] if case["kind"] == "detect"]
    assert len(boxes) == 2
    assert all(boxes)
    assert (Golden(Bundle.load(whole_bundle)).tensor("cleaned") < 128).any()
    assert [case["genuine"] for case in index["cases"] if case["kind"] == "verify"] == [True, False, False]
    size = sum(file.stat().st_size for file in (whole_bundle / "golden").iterdir())
    assert size < 1_000_000


@pytest.mark.parametrize(("kind", "check"), [
    ("detector", "detector heads raw_logits"),
    ("cleaner", "cleaner square output"),
    ("extractor", "extractor ink embedding"),
])  # fmt: skip
def test_changed_weights_fail_the_golden_vectors_even_with_fitting_hashes(bundle, kind, check):
    model = onnx.load(str(bundle / f"{kind}.onnx"))
    largest = max(model.graph.initializer, key=lambda tensor: tensor.ByteSize())
    changed = onnx.numpy_helper.to_array(largest) * np.float32(1.05)
    largest.CopyFrom(onnx.numpy_helper.from_array(changed, largest.name))
    onnx.save(model, str(bundle / f"{kind}.onnx"))
    rehash(bundle)
    proof = verify(bundle, threads=1)
    assert not proof.passed
    assert check in {one.name for one in proof.checks if not one.passed}


def test_the_contract_is_what_onnx_runtime_sees(bundle):
    manifest = read(bundle)
    manifest["models"]["cleaner"]["inputs"][0]["shape"] = [1, 112, 112, 3]
    write(bundle, manifest)
    Bundle.load(bundle)
    with pytest.raises(SignVerError, match=r"cleaner\.onnx: its inputs are .*224.*112"):
        verify(bundle)


def test_a_damaged_golden_index_is_an_error_of_the_sdk(bundle):
    path = bundle / "golden" / "golden.json"
    original = json.loads(path.read_text())
    damages = [
        lambda index: index.update(version=2),
        lambda index: index.update(cases=[{"name": "x", "kind": "nothing"}]),
        lambda index: index["tensors"]["page"].update(shape=[10**9, 10**9]),
        lambda index: index["tensors"]["page"].update(file="../manifest.json"),
        lambda index: index["cases"][0]["inputs"]["image"].update(repeat_channels=10**9),
        lambda index: index["cases"].insert(0, []),
    ]
    for damage in damages:
        index = json.loads(json.dumps(original))
        damage(index)
        path.write_text(json.dumps(index))
        rehash(bundle)
        with pytest.raises(SignVerError, match="golden"):
            verify(bundle)


def test_the_command_says_passed_failed_or_refused(whole_bundle, bundle, capsys):
    assert main([str(whole_bundle), "--threads", "1"]) == 0
    assert "PASSED" in capsys.readouterr().out
    (bundle / "note.txt").write_text("left by somebody")
    (bundle / "cleaner.onnx").write_bytes(b"")
    assert main([str(bundle)]) == 2
    assert "cleaner.onnx" in capsys.readouterr().err


def test_a_stranger_in_the_folder_is_named_and_not_read(bundle):
    (bundle / "golden" / "note.txt").write_text("left by somebody")
    proof = verify(bundle)
    assert proof.passed
    assert proof.strangers == ["golden/note.txt"]


def test_the_proof_needs_numpy_onnxruntime_and_pillow_alone(whole_bundle):
    allowed = sorted({"numpy", "onnxruntime", "PIL", "signver", "export", "training", "coloredlogs"})
    code = f"""
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {allowed} and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Bare())
sys.argv = ["export", "validate", {str(whole_bundle)!r}]
from export.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


# What is refused, with the reason


def set_key(*path, value):
    def damage(bundle):
        manifest = read(bundle)
        at(manifest, path[:-1])[path[-1]] = value
        write(bundle, manifest)

    return damage


def text(old, new):
    def damage(bundle):
        path = bundle / "manifest.json"
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return damage


def external_data(bundle):
    model = onnx.load(str(bundle / "cleaner.onnx"))
    onnx.save(
        model, str(bundle / "cleaner.onnx"), save_as_external_data=True, size_threshold=0, location="w.bin"
    )
    rehash(bundle)


def custom_operator(bundle):
    model = onnx.load(str(bundle / "cleaner.onnx"))
    model.graph.node[0].domain = "com.example"
    onnx.save(model, str(bundle / "cleaner.onnx"))
    rehash(bundle)


def other_opset(bundle):
    model = onnx.load(str(bundle / "cleaner.onnx"))
    model.opset_import[0].version = 18
    onnx.save(model, str(bundle / "cleaner.onnx"))
    rehash(bundle)


def cut_with_fitting_hash(bundle):
    content = (bundle / "cleaner.onnx").read_bytes()
    (bundle / "cleaner.onnx").write_bytes(content[: len(content) // 2])
    rehash(bundle)


def swapped(bundle):
    one, two = bundle / "cleaner.onnx", bundle / "extractor.onnx"
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    rehash(bundle)


def linked(bundle):
    outside = shutil.copy(bundle / "cleaner.onnx", bundle.parent / "outside.onnx")
    (bundle / "cleaner.onnx").unlink()
    (bundle / "cleaner.onnx").symlink_to(outside)


def piped(bundle):
    (bundle / "NOTICE.md").unlink()
    os.mkfifo(bundle / "NOTICE.md")


def deep(bundle):
    (bundle / "manifest.json").write_text('{"format":' + "[" * 100_000)


FILE = ("models", "cleaner", "file")
REFUSED = [
    (lambda bundle: shutil.rmtree(bundle), "no such folder"),
    (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json"),
    (lambda bundle: (bundle / "cleaner.onnx").unlink(), "cleaner.onnx: cannot be opened"),
    (lambda bundle: (bundle / "cleaner.onnx").write_bytes(b"x"), "cleaner.onnx: 1 bytes; the manifest says"),
    (set_key("schema_version", value=2), "schema version 2; this SDK reads 1. Install a newer"),
    (set_key("format", value="other"), "not a bundle's manifest"),
    (
        set_key(*FILE, value="../cleaner.onnx"),
        r"models\.cleaner\.file.*not of the form",
    ),
    (set_key(*FILE, value="/cleaner.onnx"), r"models\.cleaner\.file.*not of the form"),
    (set_key(*FILE, value="a\\..\\b"), r"models\.cleaner\.file.*not of the form"),
    (set_key(*FILE, value="cleaner.onnx\n"), r"models\.cleaner\.file.*not of the form"),
    (set_key("models", "cleaner", "size", value="big"), r"cleaner\.size: expected integer"),
    (set_key("extra", value=1), r"manifest\.extra: unknown key; expected one of"),
    (set_key("golden", value="golden/none.json"), "not listed"),
    (set_key("models", "detector", "thresholds", "score", "value", value=0.9), "the manifest says another"),
    (set_key("models", "detector", "labels", "1", value="date"), "its labels are"),
    (text('"schema_version"', '"format": "signver-bundle", "schema_version"'), "stands twice"),
    (text('"ridge": 0.1', '"ridge": 0.2'), "by ridge 0.2, prior_pairs 2; this SDK by 0.1, 2"),
    (text('"value": 0.1', '"value": NaN'), "NaN is no JSON number"),
    (text('"value": 0.1', '"value": 1e999'), "too large or too long"),
    (text('"value": 0.1', f'"value": {"9" * 5000}'), "a number of 5,000 digits"),
    (text("{", "{" + " " * 1_100_000), "more than 1,000,000 bytes"),
    (deep, "nested too deeply"),
    (external_data, "keeps weights in other files"),
    (custom_operator, "operators that a plain ONNX Runtime lacks: com.example:"),
    (other_opset, "opset 18 and IR 8; the manifest says 17 and 8"),
    (cut_with_fitting_hash, "cut off"),
    (swapped, "no cleaner; its metadata say signver.model=extractor"),
    (linked, "lies outside the bundle"),
    (piped, "not a regular file"),
]


@pytest.mark.parametrize(("damage", "reason"), REFUSED, ids=[reason[:30] for _, reason in REFUSED])
def test_a_bad_bundle_is_refused_with_the_reason(bundle, damage, reason):
    damage(bundle)
    with pytest.raises(SignVerError) as caught:
        Bundle.load(bundle)
    assert re.search(reason, str(caught.value)), caught.value
    assert str(bundle) in str(caught.value)


# The mutator


class Mutator:
    """Damages a bundle in one of many ways; the same seed damages the same."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def damage(self, bundle):
        ways = sorted(name for name in dir(self) if name.startswith("way_"))
        way = self.random.choice(ways)
        getattr(self, way)(bundle)

    def file(self, bundle):
        names = sorted(path for path in bundle.rglob("*") if path.is_file())
        return self.random.choice(names)

    def replace(self, path, content):
        path.unlink()
        path.write_bytes(content)

    def way_flip_bits(self, bundle):
        path = self.file(bundle)
        content = bytearray(path.read_bytes())
        for _ in range(self.random.choice((1, 1, 8, 200))):
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        self.replace(path, bytes(content))

    def way_truncate(self, bundle):
        path = self.file(bundle)
        content = path.read_bytes()
        self.replace(path, content[: self.random.randrange(len(content))])

    def way_append(self, bundle):
        path = self.file(bundle)
        self.replace(path, path.read_bytes() + self.random.randbytes(self.random.randrange(1, 5000)))

    def way_swap(self, bundle):
        one, two = self.file(bundle), self.file(bundle)
        first, second = one.read_bytes(), two.read_bytes()
        self.replace(one, second)
        self.replace(two, first)

    def way_remove(self, bundle):
        self.file(bundle).unlink()

    def way_link_outside(self, bundle):
        path = self.file(bundle)
        outside = bundle.parent / f"{path.name}.outside"
        shutil.move(path, outside)
        path.symlink_to(outside)

    def way_link_to_itself(self, bundle):
        path = self.file(bundle)
        path.unlink()
        path.symlink_to(path)

    def way_folder(self, bundle):
        path = self.file(bundle)
        path.unlink()
        path.mkdir()

    def way_pipe(self, bundle):
        path = self.file(bundle)
        path.unlink()
        os.mkfifo(path)

    def way_edit_value(self, bundle):
        manifest = read(bundle)
        *parents, last = self.random.choice(list(leaves(manifest)))
        values = [
            None,
            True,
            -1,
            0,
            2**63,
            10**30,
            1e300,
            "",
            "../../x",
            "/dev/zero",
            "\ud800",
            "x" * 10_000,
            [],
            {},
        ]
        at(manifest, parents)[last] = self.random.choice(values)
        self.replace(bundle / "manifest.json", json.dumps(manifest).encode())

    def way_remove_key(self, bundle):
        manifest = read(bundle)
        path = self.random.choice(list(leaves(manifest)))
        path = path[: self.random.randrange(1, len(path) + 1)]
        del at(manifest, path[:-1])[path[-1]]
        self.replace(bundle / "manifest.json", json.dumps(manifest).encode())

    def way_nest(self, bundle):
        depth = self.random.choice((1_000, 100_000))
        opening = self.random.choice(("[", '{"a":'))
        self.replace(bundle / "manifest.json", (opening * depth).encode())

    def way_not_json(self, bundle):
        junk = [b"", b"null", b"[]", b"\xff\xfe{}", b"{}" * 9, b'{"format": Infinity}', b"0" * 900_000]
        self.replace(bundle / "manifest.json", self.random.choice(junk))


@pytest.mark.parametrize("seed", range(DAMAGED))
def test_damage_is_refused_or_changes_no_answer(whole_bundle, tmp_path, seed):
    damaged = tmp_path / "bundle"
    shutil.copytree(whole_bundle, damaged, copy_function=os.link)

    def hangs(*_):
        raise AssertionError("does not come to an end")

    signal.signal(signal.SIGALRM, hangs)
    Mutator(seed).damage(damaged)
    signal.alarm(60)
    try:
        loaded = Bundle.load(damaged)
    except SignVerError:
        return
    finally:
        signal.alarm(0)
    sound = Bundle.load(whole_bundle)
    for kind in sound.manifest["models"]:
        if not loaded.has(kind):
            continue
        assert loaded.model_path(kind).read_bytes() == sound.model_path(kind).read_bytes()
    if loaded.has("detector"):
        assert loaded.detector(1).class_names == sound.detector(1).class_names
        assert loaded.detector(1).score_threshold == sound.detector(1).score_threshold
    if loaded.has("extractor"):
        assert loaded.matcher().threshold == sound.matcher().threshold


# The header reader


def test_the_header_says_what_the_onnx_package_says(whole_bundle):
    for kind in ("detector", "cleaner", "extractor"):
        path = whole_bundle / f"{kind}.onnx"
        model, found = onnx.load(str(path)), read_header(path.read_bytes())
        assert found.ir_version == model.ir_version
        assert found.opsets == {entry.domain: entry.version for entry in model.opset_import}
        assert found.operators == {node.op_type for node in model.graph.node}
        assert found.metadata == {entry.key: entry.value for entry in model.metadata_props}
        assert not found.external_data


def test_the_header_reader_survives_any_bytes(whole_bundle):
    content = (whole_bundle / "extractor.onnx").read_bytes()
    random_ = random.Random(3)
    for _ in range(150):
        damaged = bytearray(
            content[: random_.randrange(1, len(content))] if random_.random() < 0.5 else content
        )
        for _ in range(20):
            damaged[random_.randrange(min(len(damaged), 3000))] = random_.randrange(256)
        try:
            read_header(bytes(damaged))
        except SignVerError:
            continue
