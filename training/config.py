"""Experiments and their YAML files: strict keys, strict leaf types, derived values computed once.

tf-models refuses an unknown key but not a value of the wrong type, and PyYAML reads `1e-4` as a
string and `off` as False; both would pass. Here both are errors that say the path of the key.
"""

from __future__ import annotations

import collections.abc
import difflib
import importlib
import pathlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from training.errors import UserError

if typing.TYPE_CHECKING:
    from training.experiment import Experiment

# What can be trained: experiment name -> module:function of its config; the module also defines
# `build_task(config)` and `sample_data(folder)`.
EXPERIMENTS: dict[str, str] = {
    "retinanet_signverod": "training.detector.experiment:experiment",
    "cleaner_autoencoder": "training.cleaner.experiment:autoencoder_experiment",
    "cleaner_unet": "training.cleaner.experiment:unet_experiment",
    "extractor_metric": "training.extractor.experiment:metric_experiment",
    "extractor_siamese": "training.extractor.experiment:siamese_experiment",
}


def load(name: str, config_files: Iterable[str] = (), overrides: str | Sequence[str] = ()) -> Experiment:
    """Builds an experiment: its defaults, then each file, then the overrides, later wins.

    A file may start with `base: other.yaml` (relative to itself), which is applied before it.

    Args:
      name: a key of `EXPERIMENTS`.
      config_files: YAML files.
      overrides: YAML text, e.g. `{trainer: {train_steps: 100}}`, or several, of which later ones win.

    Raises:
      UserError: unknown experiment, file, key, or a value of the wrong type.
    """
    module, function = _module(name)
    experiment = getattr(module, function)()
    for file in config_files:
        for path, values in _read(pathlib.Path(file), ()):
            apply(experiment, values, str(path))
    for override in [overrides] if isinstance(overrides, str) else overrides:
        apply(experiment, _parse(override, "--params_override"), "--params_override")
    return experiment


def build_task(name: str, experiment: Experiment) -> Any:
    """The tf-models task that trains an experiment's model."""
    import tensorflow as tf

    task = _module(name)[0].build_task(experiment.task)
    # AutoGraph turns `if` and `for` on tensors into graph operations. No step and no layer here has any, and
    # to rewrite the source of all of them takes a third of the time that a training needs to begin.
    for step in ("train_step", "validation_step"):
        setattr(task, step, tf.autograph.experimental.do_not_convert(getattr(task, step)))
    return task


def sample_data(name: str, folder: pathlib.Path) -> str:
    """Makes a few synthetic records of the kind an experiment reads; returns their input_path."""
    return str(_module(name)[0].sample_data(folder))


def apply(config: Any, values: Mapping[str, Any], source: str) -> None:
    """Overrides `config` in place with `values`, after checking every key and type.

    Raises:
      UserError: names `source` and the dotted path of the key.
    """
    _check(config, values, "", source)
    config.override(dict(values), is_strict=True)


def save(experiment: Experiment, path: pathlib.Path) -> None:
    """Writes the resolved config as YAML that `load` reads back."""
    from training.files import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(experiment.as_dict(), sort_keys=True), encoding="utf-8")


def _module(name: str) -> tuple[types.ModuleType, str]:
    if name not in EXPERIMENTS:
        raise UserError(f"--experiment {name}: unknown.{_nearest(name, EXPERIMENTS)}")
    module, _, function = EXPERIMENTS[name].partition(":")
    return importlib.import_module(module), function


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."


def _read(path: pathlib.Path, above: tuple[pathlib.Path, ...]) -> list[tuple[pathlib.Path, dict[str, Any]]]:
    if path.resolve() in above:
        raise UserError(f"{path}: its `base` chain comes back to itself.")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--config_file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config_file {path}: no text in UTF-8.") from error
    values = _parse(text, str(path))
    base = values.pop("base", None)
    files = [] if base is None else _read(path.parent / str(base), (*above, path.resolve()))
    return [*files, (path, values)]


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise UserError(f"{source}{line}: not YAML: {getattr(error, 'problem', error)}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected `key: value` pairs, found {type(values).__name__}.")
    return values


def _check(config: Any, values: Mapping[str, Any], path: str, source: str) -> None:
    annotations = config._get_annotations()
    fields = {key for key in config.__dict__ if key not in config.RESERVED_ATTR}
    if not annotations:  # an untyped tf-models Config: any key, nothing to check against
        return
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in fields:
            raise UserError(f"{source}: unknown key '{where}'.{_nearest(str(key), fields)}")
        current = getattr(config, key)
        if isinstance(value, dict) and _is_config(annotations.get(key)):
            nested = current if hasattr(current, "override") else config._get_subconfig_type(key)()
            _check(nested, value, where, source)
        elif key in annotations and not _fits(value, annotations[key]):
            raise UserError(
                f"{source}: {where} must be {_name(annotations[key])}, found "
                f"{type(value).__name__} {value!r}.{_hint(value, annotations[key])}"
            )


def _is_config(annotation: Any) -> bool:
    options = typing.get_args(annotation) or (annotation,)
    return any(isinstance(option, type) and hasattr(option, "override") for option in options)


def _fits(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if annotation is Any or isinstance(annotation, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(annotation))
    if origin is not None and issubclass(origin, collections.abc.Sequence):
        element = (typing.get_args(annotation) or (Any,))[0]
        return isinstance(value, list | tuple) and all(_fits(item, element) for item in value)
    if origin is not None and issubclass(origin, collections.abc.Mapping):
        return isinstance(value, dict)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hasattr(annotation, "override"):
        return value is None or isinstance(value, dict)
    return not isinstance(annotation, type) or isinstance(value, annotation)


def _name(annotation: Any) -> str:
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_name(option) for option in options)
    if options:
        return f"a list of {_name(options[0])}"
    return getattr(annotation, "__name__", str(annotation))


def _hint(value: Any, annotation: Any) -> str:
    if isinstance(value, str) and _fits(0.5, annotation):
        try:
            number = float(value)
        except ValueError:
            return ""
        return f" YAML reads '{value}' as text; write {number!r} with a decimal point: {number:.1e}."
    if isinstance(value, bool) and _fits("", annotation):
        return " YAML reads on, off, yes and no as booleans; quote the word."
    return ""
