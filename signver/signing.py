"""Signature of a bundle's manifest, which carries the hashes of everything else. Needs the extra `[signing]`.

Ed25519, or ECDSA with SHA-256, over the bytes of `manifest.json`, in `manifest.json.sig` beside it, in the
form that OpenSSL reads:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in manifest.json -sigfile manifest.json.sig
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from signver.errors import SignVerError
from signver.manifest import NAME, read_inside

SIGNATURE = f"{NAME}.sig"
_MOST_BYTES = 4096
_EXPECTED = "expected a PEM file of an Ed25519 or ECDSA key"


def verify_signature(folder: pathlib.Path, content: bytes, public_key: str | os.PathLike[str]) -> None:
    """Holds a manifest's bytes against the signature beside it.

    Args:
      folder: of the bundle.
      content: bytes of the manifest.
      public_key: PEM file.

    Raises:
      SignVerError: no signature, one of another key or of other bytes, or a key that cannot be used.
    """
    crypto = _cryptography()
    key = _read_key(public_key, crypto.serialization.load_pem_public_key)
    if not (folder / SIGNATURE).exists():
        raise SignVerError(
            f"{folder}: not signed, and a signature is asked for; sign with `python -m export bundle --sign`."
        )
    try:
        signature = read_inside(folder, SIGNATURE, _MOST_BYTES)
        if isinstance(key, crypto.ed25519.Ed25519PublicKey):
            key.verify(signature, content)
        elif isinstance(key, crypto.ec.EllipticCurvePublicKey):
            key.verify(signature, content, crypto.ec.ECDSA(crypto.hashes.SHA256()))
        else:
            raise SignVerError(f"{os.fspath(public_key)}: {_EXPECTED}, found {type(key).__name__}.")
    except crypto.InvalidSignature as error:
        raise SignVerError(
            f"{folder / SIGNATURE}: no signature of this manifest by {os.fspath(public_key)}: it was "
            "changed, or another key signed it."
        ) from error


def sign(content: bytes, private_key: str | os.PathLike[str]) -> bytes:
    """The signature of a manifest's bytes; with Ed25519 the same every time.

    Args:
      content: bytes of the manifest.
      private_key: PEM file without password.

    Raises:
      SignVerError: a key that cannot be used.
    """
    crypto = _cryptography()

    def load(pem: bytes) -> Any:
        return crypto.serialization.load_pem_private_key(pem, password=None)

    key = _read_key(private_key, load)
    if isinstance(key, crypto.ed25519.Ed25519PrivateKey):
        return key.sign(content)
    if isinstance(key, crypto.ec.EllipticCurvePrivateKey):
        return key.sign(content, crypto.ec.ECDSA(crypto.hashes.SHA256()))
    raise SignVerError(f"{os.fspath(private_key)}: {_EXPECTED}, found {type(key).__name__}.")


def _read_key(path: str | os.PathLike[str], load: Any) -> Any:
    name = os.fspath(path)
    crypto = _cryptography()
    try:
        return load(pathlib.Path(name).read_bytes())
    except OSError as error:
        raise SignVerError(f"{name}: cannot read this key ({error.strerror}).") from error
    except (ValueError, TypeError, crypto.UnsupportedAlgorithm) as error:
        raise SignVerError(f"{name}: {_EXPECTED} without password ({error}).") from error


def _cryptography() -> Any:
    """The parts of the package that are used here, under one name."""
    import types

    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    except ImportError as error:
        raise SignVerError("signatures need `pip install 'signver-harness[signing]'`.") from error
    return types.SimpleNamespace(
        InvalidSignature=InvalidSignature,
        UnsupportedAlgorithm=UnsupportedAlgorithm,
        hashes=hashes,
        serialization=serialization,
        ec=ec,
        ed25519=ed25519,
    )
