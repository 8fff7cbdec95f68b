"""A bundle's C# program for Microsoft.ML.OnnxRuntime, generated from the manifest.

Names, types and layouts of inputs and outputs come from the manifest, one class and one method a model; sizes
and thresholds are read from it when the program runs. docs/sdk.md shows the result; a test compares both.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

from training.errors import UserError

_TYPES = {"uint8": "byte", "float32": "float", "int32": "int", "int64": "long"}
_SOURCE = pathlib.Path(__file__).with_name("csharp.cs")
# What stands in the template for the generated part.
_MARK = "    // models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("bundle", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, help="file to write; standard output by default")


def run(arguments: argparse.Namespace) -> int:
    """Prints or writes the program of a bundle; returns the exit code."""
    from signver import SignVerError
    from signver.bundle import Bundle
    from training.files import atomic_file

    try:
        source = program(Bundle.load(arguments.bundle).manifest)
    except SignVerError as error:
        raise UserError(str(error)) from error
    if arguments.output is None:
        print(source, end="")
    else:
        with atomic_file(arguments.output) as temporary:
            temporary.write_text(source, encoding="utf-8")
    return 0


def program(manifest: Mapping[str, Any]) -> str:
    """The program of a manifest.

    Raises:
      UserError: a model has values of a type that the program cannot hold.
    """
    template = _SOURCE.read_text(encoding="utf-8")
    models = sorted(manifest["models"].items())
    return template.replace(_MARK, "\n\n".join(_model(kind, entry) for kind, entry in models))


def _model(kind: str, entry: Mapping[str, Any]) -> str:
    name = _pascal(kind)
    fields = [
        f"        public {_type(value)}[] {_pascal(value['name'])}; // {_shown(value)}"
        for value in entry["outputs"]
    ]
    arguments = ", ".join(
        f"{_type(value)}[] {_camel(value['name'])}, int[] {_camel(value['name'])}Shape"
        for value in entry["inputs"]
    )
    feeds = [
        f"            Value({_quoted(value['name'])}, {_camel(value['name'])}, {_camel(value['name'])}Shape),"
        for value in entry["inputs"]
    ]
    answers = [
        f"                {_pascal(value['name'])} = Values<{_type(value)}>(found, {_quoted(value['name'])}),"
        for value in entry["outputs"]
    ]
    return "\n".join(
        [
            f"    public sealed class {name}Answer",
            *("    {", *fields, "    }", ""),
            *(f"    // {value['name']}: {_shown(value)}" for value in entry["inputs"]),
            f"    public {name}Answer Run{name}({arguments})",
            *("    {", "        var inputs = new List<NamedOnnxValue>", "        {", *feeds, "        };"),
            f"        using (var found = sessions[{_quoted(kind)}].Run(inputs))",
            *("        {", f"            return new {name}Answer", "            {", *answers),
            *("            };", "        }", "    }"),
        ]
    )


def _shown(value: Mapping[str, Any]) -> str:
    bounds = "" if value["range"] is None else f", {value['range'][0]:g} to {value['range'][1]:g}"
    return f"[{value['layout'].replace(' ', ', ')}]{bounds}. {value['meaning']}"


def _type(value: Mapping[str, Any]) -> str:
    if value["dtype"] not in _TYPES:
        raise UserError(f"csharp: no type for {value['name']}, which is {value['dtype']}.")
    return _TYPES[value["dtype"]]


def _quoted(name: str) -> str:
    return f'"{name}"'


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _camel(name: str) -> str:
    pascal = _pascal(name)
    return pascal[0].lower() + pascal[1:]
