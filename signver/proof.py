"""Re-proves a bundle on the machine that will run it: `python -m signver.proof bundle/`.

Needs what the SDK needs and nothing else. Hashes and headers first, so that no byte of a changed model is run
by ONNX Runtime; then the contract of every model, then the golden vectors.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence

import onnxruntime

from signver import manifest as manifests
from signver.bundle import Bundle
from signver.errors import SignVerError
from signver.golden import Check, Golden
from signver.signing import SIGNATURE


@dataclasses.dataclass(frozen=True)
class Proof:
    """What `verify` found.

    Attributes:
      bundle: loaded, so its files are those of the release.
      checks: every comparison with a golden vector.
      strangers: files in the folder that the manifest does not list; nothing reads them.
    """

    bundle: Bundle
    checks: Sequence[Check]
    strangers: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether the bundle answers here as it did where it was made."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def text(self) -> str:
        """The proof as a table."""
        models = ", ".join(
            f"{kind} (opset {model['opset']}, IR {model['ir_version']}, {model['precision']})"
            for kind, model in sorted(self.bundle.manifest["models"].items())
        )
        lines = [
            f"{self.bundle.path}: {models}; ONNX Runtime {onnxruntime.__version__}",
            f"{len(manifests.listed(self.bundle.manifest))} files have the hashes of the manifest",
            *(f"not in the manifest, and not read: {name}" for name in self.strangers),
            "",
            f"{'golden vector':40} {'difference':>12} {'limit':>12}",
        ]
        lines += [
            f"{check.name:40} {check.found:12.3g} {check.limit:12.3g}{'' if check.passed else '  FAILED'}"
            for check in self.checks
        ]
        return "\n".join([*lines, "", "PASSED" if self.passed else "FAILED"])


def verify(
    path: str | os.PathLike[str] | None = None,
    *,
    public_key: str | os.PathLike[str] | None = None,
    threads: int = 0,
) -> Proof:
    """Re-proves a bundle on this machine: all that `Bundle.load` checks, then contracts and golden vectors.

    Args:
      path, public_key: as for `Bundle.load`.
      threads: cores that one call may use; 0 lets ONNX Runtime take all.

    Raises:
      SignVerError: as `Bundle.load`; or a model whose inputs and outputs are not those of the manifest, or
        that this ONNX Runtime does not load.
    """
    bundle = Bundle.load(path, public_key=public_key)
    for kind in sorted(bundle.manifest["models"]):
        bundle.check_contract(kind)
    strangers = manifests.strangers(bundle.path, bundle.manifest, SIGNATURE)
    return Proof(bundle, Golden(bundle, threads).run(), strangers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m signver.proof`; exit code 0 proved, 1 other answers, 2 refused."""
    parser = argparse.ArgumentParser(
        prog="python -m signver.proof", description="Re-prove a bundle on this machine."
    )
    parser.add_argument("bundle", nargs="?", help="folder; default: the models that ship with the package")
    parser.add_argument("--public_key", help="PEM file; the manifest must be signed with its private key")
    parser.add_argument("--threads", type=int, default=0, help="cores to use; 0 takes all")
    options = parser.parse_args(arguments)
    try:
        proof = verify(options.bundle, public_key=options.public_key, threads=options.threads)
    except SignVerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(proof.text())
    return 0 if proof.passed else 1


if __name__ == "__main__":
    sys.exit(main())
