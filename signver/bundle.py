"""A bundle: the models of one release in one folder, with a manifest that proves every file of it.

    from signver.bundle import Bundle

    bundle = Bundle.load("bundle/")
    detector, extractor, matcher = bundle.detector(), bundle.extractor(), bundle.matcher()

`python -m signver.proof bundle/` re-proves a bundle on this machine, golden vectors included.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from signver import manifest as manifests
from signver.cleaner import Cleaner
from signver.detector import Detector
from signver.errors import SignVerError
from signver.extractor import MetricExtractor
from signver.index import PRIOR_PAIRS, RIDGE
from signver.matcher import Matcher
from signver.model_file import open_model
from signver.onnx_file import read_header
from signver.signing import verify_signature

_MOST_MODEL_BYTES = 1 << 31


class Bundle:
    """A verified folder.

    Attributes:
      path: the folder.
      manifest: the parsed `manifest.json`, as `manifest.schema.json` describes it.
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]):
        """Use `Bundle.load`, which verifies."""
        self.path = path
        self.manifest = manifest

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, public_key: str | os.PathLike[str] | None = None
    ) -> Bundle:
        """Opens a bundle: manifest, hashes and sizes of all files, and the models' own headers are checked.

        Args:
          path: the folder; None takes the bundle that ships with the package.
          public_key: PEM file; the manifest must then be signed with its private key. Needs the extra
            `[signing]`.

        Raises:
          SignVerError: no bundle, a damaged or changed one, one of a newer schema, or a signature that is
            missing or wrong.
        """
        folder = pathlib.Path(path) if path is not None else default_bundle()
        if folder is None:
            raise SignVerError(
                "no models ship with this installation; name a bundle, as Bundle.load('bundle/') does, or "
                "make one with `python -m export bundle`."
            )
        manifest, content = manifests.read(folder)
        if public_key is not None:
            verify_signature(folder, content, public_key)
        manifests.check_files(folder, manifest)
        bundle = cls(folder, manifest)
        for kind in manifest["models"]:
            bundle._check_header(kind)
        return bundle

    def has(self, kind: str) -> bool:
        """Whether the bundle holds a "detector", a "cleaner" or an "extractor"."""
        return kind in self.manifest["models"]

    def model_path(self, kind: str) -> pathlib.Path:
        """The ONNX file of a kind.

        Raises:
          SignVerError: the bundle has none.
        """
        return self.path / self._model(kind)["file"]

    def sha256(self, kind: str) -> str:
        """What the ONNX file of a kind must have, hexadecimal.

        Raises:
          SignVerError: the bundle has none.
        """
        return str(self._model(kind)["sha256"])

    def detector(self, threads: int = 0) -> Detector:
        """The detector, with the manifest's labels and threshold.

        Raises:
          SignVerError: the bundle has none.
        """
        detector = Detector(threads).load(self.model_path("detector"), sha256=self.sha256("detector"))
        detector.class_names = {int(key): name for key, name in self._model("detector")["labels"].items()}
        detector.score_threshold = self._threshold("detector", "score")
        return detector

    def cleaner(self, threads: int = 0) -> Cleaner:
        """The cleaner.

        Raises:
          SignVerError: the bundle has none.
        """
        return Cleaner(threads).load(self.model_path("cleaner"), sha256=self.sha256("cleaner"))

    def extractor(self, threads: int = 0) -> MetricExtractor:
        """The extractor, with the manifest's threshold.

        Raises:
          SignVerError: the bundle has none.
        """
        extractor = MetricExtractor(threads).load(
            self.model_path("extractor"), sha256=self.sha256("extractor")
        )
        extractor.threshold = self._threshold("extractor", "cosine")
        return extractor

    def matcher(self) -> Matcher:
        """A matcher with the extractor's threshold and consistency.

        Raises:
          SignVerError: the bundle has no extractor.
        """
        consistency = _consistency(self._model("extractor"))
        return Matcher(self._threshold("extractor", "cosine"), consistency=consistency)

    def check_contract(self, kind: str) -> None:
        """Holds the inputs and outputs that ONNX Runtime sees against the manifest.

        Raises:
          SignVerError: they differ, or this ONNX Runtime does not load the file.
        """
        model = self._model(kind)
        session, _ = open_model(self.model_path(kind), kind, sha256=self.sha256(kind))
        for side, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            found = [(value.name, _dtype(value.type), list(value.shape)) for value in values]
            wanted = [(value["name"], value["dtype"], value["shape"]) for value in model[side]]
            if found != wanted:
                raise SignVerError(
                    f"{self.model_path(kind)}: its {side} are {found}; the manifest says {wanted}."
                )

    def _model(self, kind: str) -> dict[str, Any]:
        if not self.has(kind):
            found = ", ".join(sorted(self.manifest["models"]))
            raise SignVerError(f"{self.path}: this bundle holds no {kind}; it holds {found}.")
        return self.manifest["models"][kind]

    def _threshold(self, kind: str, name: str) -> float:
        thresholds = self._model(kind)["thresholds"]
        if name not in thresholds:
            raise SignVerError(f"{self.path / manifests.NAME}: the {kind} has no threshold '{name}'.")
        return float(thresholds[name]["value"])

    def _check_header(self, kind: str) -> None:
        """What the file says of itself is what the manifest says, and a plain runtime can load it."""
        model = self._model(kind)
        try:
            header = read_header(manifests.read_inside(self.path, model["file"], _MOST_MODEL_BYTES))
            if header.external_data:
                raise SignVerError("keeps weights in other files; a bundle's models hold their own.")
            if header.custom_operators or header.functions:
                names = ", ".join(header.custom_operators) or "functions of its own"
                raise SignVerError(f"needs operators that a plain ONNX Runtime lacks: {names}.")
            found = (header.opsets.get("", header.opsets.get("ai.onnx")), header.ir_version)
            if found != (model["opset"], model["ir_version"]):
                raise SignVerError(
                    f"opset {found[0]} and IR {found[1]}; the manifest says {model['opset']} and "
                    f"{model['ir_version']}."
                )
            _check_metadata(kind, model, header.metadata)
        except SignVerError as error:
            raise SignVerError(f"{self.path / model['file']}: {error}") from error


def default_bundle() -> pathlib.Path | None:
    """The folder of the models that ship with the package or lie in the checkout; None without any."""
    package = pathlib.Path(__file__).parent
    for folder in (package / "default_models", package.parent / "models" / "default"):
        if (folder / manifests.NAME).is_file():
            return folder
    return None


def _check_metadata(kind: str, model: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """What decides stands in the manifest and in the file; who changed one of them is found out."""
    if metadata.get("signver.model") != kind:
        raise SignVerError(
            f"no {kind}; its metadata say signver.model={metadata.get('signver.model', 'nothing')}."
        )
    name, key = {"detector": ("score", "score_threshold"), "extractor": ("cosine", "threshold")}.get(
        kind, ("", "")
    )
    try:
        labels = json.loads(metadata.get("signver.classes", "{}"))
        threshold = float(metadata[f"signver.{key}"]) if name else None
        consistency = float(metadata["signver.consistency"]) if "signver.consistency" in metadata else None
    except (KeyError, ValueError, RecursionError) as error:
        raise SignVerError(f"damaged metadata ({error!r}).") from error
    if labels != model["labels"]:
        raise SignVerError(f"its labels are {labels}; the manifest says {model['labels']}.")
    if name and threshold != model["thresholds"].get(name, {}).get("value"):
        raise SignVerError(f"its threshold is {threshold}; the manifest says another '{name}'.")
    if consistency != _consistency(model):
        raise SignVerError(f"its consistency is {consistency}; the manifest says another.")


def _consistency(model: Mapping[str, Any]) -> float | None:
    """What the manifest's step for several references says; None where it has none."""
    steps = [step for step in model["postprocessing"] if step["step"] == "references"]
    if not steps:
        return None
    found = steps[0].get("consistency")
    if not isinstance(found, int | float) or not -1.0 <= found <= 1.0:
        raise SignVerError(f"{manifests.NAME}: consistency {found!r:.40} is no cosine.")
    rule = steps[0].get("ridge"), steps[0].get("prior_pairs")
    if rule != (RIDGE, PRIOR_PAIRS):
        raise SignVerError(
            f"{manifests.NAME}: holds several references against each other by ridge {rule[0]!r:.40}, "
            f"prior_pairs {rule[1]!r:.40}; this SDK by {RIDGE}, {PRIOR_PAIRS}. Make the bundle anew with "
            "`python -m export bundle`."
        )
    return float(found)


def _dtype(name: str) -> str:
    """numpy's name of a type as ONNX Runtime writes it, e.g. "tensor(float)"."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)
