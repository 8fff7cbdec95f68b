"""What is loaded when it is first needed, once, whichever thread needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from signver.errors import SignVerError

Model = TypeVar("Model")
Source: TypeAlias = "Model | Callable[[], Model] | None"


class Once(Generic[Model]):
    """A model that is loaded at the first call, by one thread; later calls give the same."""

    def __init__(self, source: Source[Model], what: str):
        self._lock = threading.Lock()
        self._load = source if callable(source) else None
        self._model = None if callable(source) else source
        self._what = what

    def __call__(self) -> Model:
        """The model.

        Raises:
          SignVerError: none was named, or what loading it raises.
        """
        if self._model is None:
            with self._lock:
                if self._model is None:
                    if self._load is None:
                        raise SignVerError(f"this needs a model: the {self._what}; none was named.")
                    self._model = self._load()
        return self._model
