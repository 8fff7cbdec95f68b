"""`manifest.json` of a bundle: read strictly, checked against its published schema, held against the files.

Nothing in it is trusted: it is small, plain JSON without duplicate keys or NaN, of a known schema, and every
file that it names lies in the folder and has the bytes that it says.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from signver.errors import SignVerError

NAME = "manifest.json"
SCHEMA_VERSION = 1
SCHEMA = pathlib.Path(__file__).with_name("manifest.schema.json")
_MOST_BYTES = 1_000_000
# Digits of a number; more can only be an attack on the reader.
_MOST_DIGITS = 40
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
}


def read(folder: pathlib.Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of a bundle and its bytes, which a signature covers.

    Raises:
      SignVerError: no folder, no manifest, or one that cannot be used.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise SignVerError(f"{folder}: no such folder; a bundle is made by `python -m export bundle`.")
    try:
        content = read_inside(folder, NAME, _MOST_BYTES)
        manifest = parse(content)
        check(manifest)
    except SignVerError as error:
        raise SignVerError(f"{path}: {error}") from error
    return manifest, content


def parse(content: bytes) -> Any:
    """JSON with UTF-8, unique keys and finite numbers of sane length.

    Raises:
      SignVerError: anything else.
    """
    if len(content) > _MOST_BYTES:
        raise SignVerError(f"{len(content):,} bytes; {_MOST_BYTES:,} at most.")
    try:
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_real,
        )
    except UnicodeDecodeError as error:
        raise SignVerError(f"not UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise SignVerError(f"not JSON ({error}).") from error
    except RecursionError as error:
        raise SignVerError("nested too deeply.") from error


def check(manifest: Any) -> None:
    """Holds a manifest against the schema of this SDK.

    Raises:
      SignVerError: no manifest, one of a newer schema, or one that breaks the schema; names the place.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != "signver-bundle":
        raise SignVerError("not a bundle's manifest; its 'format' is not 'signver-bundle'.")
    version = manifest.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SignVerError(
            f"schema version {version}; this SDK reads {SCHEMA_VERSION}. Install a newer signver."
        )
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    _check_value(manifest, schema, schema, "manifest")
    listed(manifest)


def listed(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Path to `size` and `sha256` of every file that a manifest lists.

    Raises:
      SignVerError: a path is listed twice, or one is referred to and not listed.
    """
    found: dict[str, Mapping[str, Any]] = dict(manifest["files"])
    for model in manifest["models"].values():
        if model["file"] in found:
            raise SignVerError(f"'{model['file']}' is listed twice.")
        found[model["file"]] = model
    cards = [model["card"] for model in manifest["models"].values()]
    for name in (manifest["golden"], manifest["notice"], *cards):
        if name not in manifest["files"]:
            raise SignVerError(f"'{name}' is not listed under 'files'.")
    return found


def strangers(folder: pathlib.Path, manifest: Mapping[str, Any], *known: str) -> list[str]:
    """Files in a bundle's folder that are neither the manifest, nor listed in it, nor `known`; sorted."""
    expected = {*listed(manifest), NAME, *known}
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    return sorted(found - expected)


def check_files(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Holds every listed file against its size and SHA-256.

    Raises:
      SignVerError: a file is missing, leaves the folder, or has other bytes; names it.
    """
    for name, entry in sorted(listed(manifest).items()):
        try:
            path = locate(folder, name)
            size = path.stat().st_size
            if size != entry["size"]:
                raise SignVerError(f"{size:,} bytes; the manifest says {entry['size']:,}.")
            digest = _sha256(path)
            if digest != entry["sha256"]:
                raise SignVerError(
                    f"its SHA-256 is {digest[:12]}…, the manifest says {entry['sha256'][:12]}…: damaged, "
                    "changed or swapped. Copy the bundle anew."
                )
        except SignVerError as error:
            raise SignVerError(f"{folder / name}: {error}") from error


def locate(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A regular file of a bundle.

    Raises:
      SignVerError: it is missing, no regular file, or lies outside the folder, a symbolic link followed.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
        inside = real.is_relative_to(folder.resolve(strict=True))
        regular = stat.S_ISREG(os.stat(real).st_mode)
    except (OSError, RuntimeError, ValueError) as error:
        raise SignVerError(f"cannot be opened ({getattr(error, 'strerror', None) or error}).") from error
    if not inside:
        raise SignVerError("lies outside the bundle; a bundle holds all its files itself.")
    if not regular:
        raise SignVerError("not a regular file.")
    return path


def read_inside(folder: pathlib.Path, name: str, most: int) -> bytes:
    """The bytes of a file of a bundle.

    Raises:
      SignVerError: as `locate`, or more bytes than `most`.
    """
    path = locate(folder, name)
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise SignVerError(f"cannot be read ({error.strerror}).") from error
    if len(content) > most:
        raise SignVerError(f"more than {most:,} bytes.")
    return content


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise SignVerError(f"cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SignVerError(f"the key '{key[:80]}' stands twice in one object.")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise SignVerError(f"{name} is no JSON number.")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise SignVerError(f"a number of {len(digits):,} digits.")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits) if len(digits) <= _MOST_DIGITS else math.inf
    if not math.isfinite(value):
        raise SignVerError(f"the number {digits[:40]} is too large or too long.")
    return value


def _check_value(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], place: str) -> None:
    """The part of JSON Schema that `manifest.schema.json` uses; a test holds the two together."""
    if "$ref" in schema:
        _check_value(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, place)
    for reason in _failures(value, schema):
        raise SignVerError(f"{place}: {reason}.")
    if isinstance(value, dict):
        _check_object(value, schema, root, place)
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            _check_value(item, schema["items"], root, f"{place}[{number}]")


def _check_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], place: str
) -> None:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        here = f"{place}.{key[:80]}"
        if "propertyNames" in schema:
            _check_value(key, schema["propertyNames"], root, here)
        if key in known:
            _check_value(item, known[key], root, here)
        elif others is False:
            raise SignVerError(f"{here}: unknown key; expected one of {', '.join(sorted(known))}.")
        elif isinstance(others, dict):
            _check_value(item, others, root, here)


def _failures(value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """What a value breaks of a schema's own keywords, its members left out."""
    if "type" in schema:
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in wanted):
            yield f"expected {' or '.join(wanted)}, found {_shown(value)}"
            return
    if "const" in schema and (isinstance(value, bool) or value != schema["const"]):
        yield f"expected {schema['const']!r}, found {_shown(value)}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"expected one of {', '.join(schema['enum'])}, found {_shown(value)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
            yield f"{_shown(value)} is out of range"
    elif isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
            yield f"a text of {len(value):,} characters"
        # "$" would let a final newline pass.
        if "pattern" in schema and not re.search(re.sub(r"\$$", r"\\Z", schema["pattern"]), value):
            yield f"{_shown(value)} is not of the form {schema['pattern']}"
    elif isinstance(value, dict):
        missing = [key for key in schema.get("required", []) if key not in value]
        if missing:
            yield f"the key '{missing[0]}' is missing"
        if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf):
            yield f"{len(value)} keys"
    elif isinstance(value, list) and not (
        schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
    ):
        yield f"{len(value)} items"


def _is(value: Any, name: str) -> bool:
    if name in _TYPES:
        return isinstance(value, _TYPES[name])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return name == "number" or float(value).is_integer()


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
