"""SignVer's SDK: signature models in ONNX form, with numpy, Pillow and ONNX Runtime alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signver.cleaner import Cleaner
    from signver.detector import Detections, Detector
    from signver.errors import SignVerError
    from signver.extractor import MetricExtractor
    from signver.index import SignatureIndex
    from signver.matcher import Matcher
    from signver.pipeline import Pipeline
    from signver.siamese import SiameseVerifier
    from signver.visualization import get_image_crops, visualize_boxes

# Where each name lies. A module is imported when its name is first used: `import signver` alone takes a
# millisecond, and a command line that only prints its help never waits for ONNX Runtime.
_PLACES = {
    "Cleaner": "signver.cleaner",
    "Detections": "signver.detector",
    "Detector": "signver.detector",
    "Matcher": "signver.matcher",
    "MetricExtractor": "signver.extractor",
    "Pipeline": "signver.pipeline",
    "SiameseVerifier": "signver.siamese",
    "SignVerError": "signver.errors",
    "SignatureIndex": "signver.index",
    "get_image_crops": "signver.visualization",
    "visualize_boxes": "signver.visualization",
}

__all__ = [
    "Cleaner",
    "Detections",
    "Detector",
    "Matcher",
    "MetricExtractor",
    "Pipeline",
    "SiameseVerifier",
    "SignVerError",
    "SignatureIndex",
    "get_image_crops",
    "visualize_boxes",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'signver' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
