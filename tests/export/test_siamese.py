"""The PyTorch Siamese verifier: read safely, converted to the .NET SDK's contract, proven equal, used.

No such checkpoint can be had freely, so the tests make them: seeded random weights in the exact layout.
"""

import json
import os
import pathlib

import commands
import numpy as np
import onnx
import onnxruntime
import pytest

from signver import SiameseVerifier, SignVerError, siamese
from signver.preprocessing import otsu
from training.data import signatures
from training.errors import UserError

torch = pytest.importorskip("torch", reason="PyTorch is absent: pip install '.[siamese]'")
from export import siamese as export  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
# name -> shape, as the published class of the Kaggle notebook gives them: 46 keys.
CONVOLUTIONS = {"conv1": (96, 1, 11), "conv2": (256, 96, 5), "conv3": (384, 256, 3), "conv4": (384, 384, 3)}
CONVOLUTIONS["conv5"] = (256, 384, 3)
DENSE = {"fc1": (2048, 3840), "fc2": (2048, 2048)}


def state_dict(prefix="model.", wide=4096, head=True):
    generator = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    weights = {}
    blocks = [(f"conv_layers.{n}", "conv", (o, i, k, k)) for n, (o, i, k) in CONVOLUTIONS.items()]
    blocks += [(f"fc_layers.{n}", "fc", shape) for n, shape in DENSE.items()]
    for block, kind, shape in blocks:
        out, name = shape[0], prefix + block
        weights[f"{name}.{kind}.weight"] = normal(*shape) * (2 / np.prod(shape[1:])) ** 0.5
        weights[f"{name}.bn.weight"] = 1 + 0.1 * normal(out)
        weights[f"{name}.bn.bias"] = 0.1 * normal(out)
        weights[f"{name}.bn.running_mean"] = 0.05 * normal(out)
        weights[f"{name}.bn.running_var"] = 0.5 + torch.rand(out, generator=generator)
        weights[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    if head:
        weights |= {"probs.weight": 0.05 * normal(1, wide), "probs.bias": normal(1)}
        weights |= {"projection2d.weight": 0.05 * normal(2, 2048), "projection2d.bias": normal(2)}
    return weights


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "convnet_best_loss.pt"
    torch.save({"model": state_dict(), "loss": 0.25}, path)
    return path


def picture(writer=0, number=0, label=signatures.GENUINE):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(signatures.synthesize(1, writer, number, label).image))


def command(*options, code=0):
    done = commands.run("export", "siamese", *options, code=code, timeout=300)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def converted(kaggle):
    pair, single = kaggle.with_name("verifier.onnx"), kaggle.with_name("embedding.onnx")
    text = command("--checkpoint", kaggle, "--output", pair, "--embedding_output", single)
    assert text.count("PASSED") == 2
    return pair, single


def test_the_layout_is_the_published_one():
    """46 keys and 15,800,355 trainable parameters."""
    weights = state_dict()
    assert len(weights) == 46
    trained = [v for k, v in weights.items() if "running" not in k and "num_batches" not in k]
    assert sum(v.numel() for v in trained) == 15_800_355
    listed = ROOT.parent / "shared/data/siamese_state_dict_keys.txt"
    if listed.exists():
        lines = dict(line.split("\t") for line in listed.read_text().splitlines())
        assert {key: list(value.shape) for key, value in weights.items()} == {
            key: json.loads(shape) for key, shape in lines.items()
        }


def test_the_pair_form_has_the_sdk_contract(converted):
    session = onnxruntime.InferenceSession(str(converted[0]))
    assert [(v.name, v.type, v.shape) for v in session.get_inputs()] == [
        ("input0", "tensor(uint8)", [150, 220]),
        ("input1", "tensor(uint8)", [150, 220]),
    ]
    assert [(v.name, v.type, v.shape) for v in session.get_outputs()] == [
        ("output0", "tensor(float)", [1, 2048]),
        ("output1", "tensor(float)", [1, 2048]),
        ("output2", "tensor(float)", [1, 1]),
    ]
    model = onnx.load(str(converted[0]))
    assert model.ir_version <= 8
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}


def test_the_single_form_takes_any_batch(converted):
    session = onnxruntime.InferenceSession(str(converted[1]))
    images = np.stack([siamese.prepare(picture(number=n)) for n in range(5)])
    (found,) = session.run(None, {"image": images})
    assert found.shape == (5, 2048)
    pair = onnxruntime.InferenceSession(str(converted[0]))
    one, two, _ = pair.run(None, {"input0": images[0], "input1": images[3]})
    np.testing.assert_allclose(np.concatenate([one, two]), found[[0, 3]], atol=1e-4)


def test_real_pairs_agree_with_pytorch(kaggle, converted, shared_data):
    files = sorted((shared_data / "cedar" / "full_org").glob("original_1_*.png"))[:4]
    files += sorted((shared_data / "sigcomp2011-dutch").glob("*/forged/*.png"))[:4]
    prepared = [siamese.prepare(path) for path in files]
    checkpoint = export.read_checkpoint(kaggle)
    pairs = list(zip(prepared[::2], prepared[1::2], strict=True))
    for file in converted:
        assert export.largest_difference(checkpoint, file, pairs) <= 1e-4


def test_alike_pairs_prove_nothing(kaggle, converted):
    checkpoint, one = export.read_checkpoint(kaggle), siamese.prepare(picture())
    with pytest.raises(UserError, match="0 of 3 pairs have embeddings that differ"):
        export.largest_difference(checkpoint, converted[0], [(one, one)] * 3)


def test_a_changed_weight_is_found(kaggle, converted):
    changed = export.read_checkpoint(kaggle)
    changed.weights["fc_layers.fc2.fc.weight"][:, 100] += 0.01
    pairs = [(siamese.prepare(picture(0)), siamese.prepare(picture(1)))]
    assert export.largest_difference(changed, converted[0], pairs) > 1e-4


def test_the_order_matters_to_the_head_alone(converted):
    verifier = SiameseVerifier().load(converted[0])
    there, back = (verifier.compare(picture(a), picture(b)) for a, b in ((0, 1), (1, 0)))
    assert there.cosine == pytest.approx(back.cosine, abs=1e-6)
    assert there.forged != pytest.approx(back.forged, abs=1e-4)
    assert verifier.compare(picture(0), picture(0)).cosine == pytest.approx(1.0)
    assert verifier.compare(picture(0), picture(0)).genuine


def test_a_measured_threshold_decides_where_the_file_has_one(tmp_path, converted):
    model = onnx.load(str(converted[0]))
    cosine = SiameseVerifier().load(converted[0]).compare(picture(0), picture(1)).cosine
    assert SiameseVerifier().load(converted[0]).threshold == 0.5
    path = tmp_path / "measured.onnx"
    for value, genuine in ((cosine - 0.01, True), (cosine + 0.01, False)):
        onnx.helper.set_model_props(model, {**metadata(model), "signver.threshold": repr(value)})
        onnx.save(model, str(path))
        found = SiameseVerifier().load(path)
        assert found.threshold == pytest.approx(value)
        assert found.compare(picture(0), picture(1)).genuine is genuine
    assert SiameseVerifier(0.5).load(path).threshold == 0.5
    onnx.helper.set_model_props(model, {**metadata(model), "signver.threshold": "7"})
    onnx.save(model, str(path))
    with pytest.raises(SignVerError, match="no cosine"):
        SiameseVerifier().load(path)


def metadata(model):
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_projected_head_is_told_apart(tmp_path):
    path = tmp_path / "projected.pt"
    torch.save(state_dict(wide=4), path)
    command("--checkpoint", path, "--output", tmp_path / "projected.onnx")
    assert export.read_checkpoint(path).head == "projected embeddings"


def test_signet_is_read_from_its_tuple_and_has_no_pair_form(tmp_path):
    path = tmp_path / "signet.pth"
    torch.save((state_dict(prefix="", head=False), {"weight": torch.zeros(531, 2048)}, None), path)
    assert export.read_checkpoint(path).activation == "relu"
    command("--checkpoint", path, "--embedding_output", tmp_path / "signet.onnx")
    assert "no head" in command("--checkpoint", path, "--output", tmp_path / "no.onnx", code=2)
    assert not (tmp_path / "no.onnx").exists()


def test_safetensors(tmp_path, kaggle):
    library = pytest.importorskip("safetensors.torch", reason="safetensors is absent")
    path = tmp_path / "model.safetensors"
    library.save_file(state_dict(), path)
    ours, theirs = export.read_checkpoint(path), export.read_checkpoint(kaggle)
    assert all(torch.equal(value, theirs.weights[key]) for key, value in ours.weights.items())


def test_each_wrong_key_has_its_line(tmp_path):
    weights = state_dict()
    del weights["model.conv_layers.conv2.bn.running_var"]
    weights["model.extra"] = torch.zeros(3)
    weights["probs.weight"] = torch.zeros(1, 5)
    weights["model.fc_layers.fc1.fc.weight"] = torch.zeros(2048, 3841)
    weights["projection2d.bias"][0] = float("nan")
    path = tmp_path / "wrong.pt"
    torch.save(weights, path)
    text = command("--checkpoint", path, "--output", tmp_path / "no.onnx", code=2)
    for line in (
        "missing: model.conv_layers.conv2.bn.running_var [256]",
        "unknown: model.extra [3]",
        "wrong shape: probs.weight [1, 5]",
        "wrong shape: model.fc_layers.fc1.fc.weight [2048, 3841], expected [2048, 3840]",
        "not finite: projection2d.bias",
    ):
        assert line in text
    assert "Traceback" not in text


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmful-was-run",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(UserError, match="holds more than weights"):
        export.read_checkpoint(tmp_path / "harmful.pt")
    assert not (tmp_path / "harmful-was-run").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files_are_refused_in_a_line(tmp_path, content, suffix):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        export.read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path, kaggle):
    path = tmp_path / "half.pt"
    path.write_bytes(kaggle.read_bytes()[:30_000_000])
    with pytest.raises(UserError, match=r"half\.pt"):
        export.read_checkpoint(path)


def test_the_sdk_refuses_other_models(tmp_path, converted):
    with pytest.raises(SignVerError, match="call load"):
        SiameseVerifier().compare(picture(), picture())
    with pytest.raises(SignVerError, match="no signver siamese"):
        SiameseVerifier().load(converted[1])


# The preprocessing, step by step against scikit-image.


def sheet(grey):
    """Every step of the published preprocessing with scikit-image."""
    filters, transform = pytest.importorskip("skimage.filters"), pytest.importorskip("skimage.transform")
    threshold = filters.threshold_otsu(grey)
    smooth = filters.gaussian(grey, 2, preserve_range=True)
    rows, columns = np.where(smooth <= threshold)
    part = grey[rows.min() : rows.max(), columns.min() : columns.max()]
    canvas = np.full(siamese.CANVAS, 255, np.uint8)
    start = []
    for found, size, most in zip((rows, columns), part.shape, siamese.CANVAS, strict=True):
        start.append(max(0, min(most // 2 - int(found.mean() - found.min()), most - size)))
    canvas[start[0] : start[0] + part.shape[0], start[1] : start[1] + part.shape[1]] = part
    canvas[canvas > threshold] = 255
    width = round(1360 / (952 / 256))
    small = transform.resize(
        255 - canvas, (256, width), mode="constant", anti_aliasing=True, preserve_range=True
    ).astype(np.uint8)
    left = round((width - 256) / 2)
    return threshold, smooth, small[53:203, left + 18 : left + 238]


def assert_same_steps(grey):
    threshold, smooth, expected = sheet(grey)
    assert otsu(grey) == threshold
    np.testing.assert_allclose(siamese.blurred(grey, 2.0), smooth, atol=1e-9)
    # Both cut to whole numbers: where the value is one, rounding in the 16th digit decides on which side.
    difference = np.abs(siamese.prepare(grey).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("writer", range(6))
def test_preprocessing_equals_scikit_image_on_synthetic_signatures(writer):
    assert_same_steps(np.asarray(picture(writer).convert("L")))


def test_preprocessing_equals_scikit_image_on_real_signatures(shared_data):
    from PIL import Image

    files = sorted((shared_data / "cedar").glob("full_*/*.png"))[::300]
    files += sorted((shared_data / "sigcomp2011-dutch").glob("*/*/*.png"))[::200]
    for path in files:
        assert_same_steps(np.asarray(Image.open(path).convert("L")))


def test_ink_far_from_the_middle_is_shifted_onto_the_sheet():
    grey = np.full((900, 1300), 255, np.uint8)
    grey[10:200, 20:60] = 0
    grey[850:880, 900:1290] = 40
    grey[400:800, 30:90] = 90
    assert_same_steps(grey)


def test_ink_larger_than_the_sheet_is_cut_to_its_middle():
    grey = np.full((1200, 1500), 255, np.uint8)
    grey[50:1150, 700:760] = 0
    grey[560:620, 20:1480] = 0
    found = siamese.prepare(grey)
    assert found.shape == (150, 220)
    assert found.max() == 255


@pytest.mark.parametrize("value", [0, 128, 255])
def test_without_ink_there_is_an_answer(value):
    with pytest.raises(SignVerError, match="no signature"):
        siamese.prepare(np.full((60, 90), value, np.uint8))


def test_one_pixel_of_ink_is_no_signature():
    grey = np.full((60, 90), 255, np.uint8)
    grey[30, 40] = 0
    with pytest.raises(SignVerError, match="no signature"):
        siamese.prepare(grey)
