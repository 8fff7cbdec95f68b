"""SignVer's SDK: signature models in ONNX form, with numpy, Pillow and ONNX Runtime alone."""

from signver.cleaner import Cleaner
from signver.detector import Detections, Detector
from signver.errors import SignVerError
from signver.extractor import MetricExtractor
from signver.matcher import Matcher
from signver.siamese import SiameseVerifier
from signver.visualization import get_image_crops, visualize_boxes

__all__ = [
    "Cleaner",
    "Detections",
    "Detector",
    "Matcher",
    "MetricExtractor",
    "SiameseVerifier",
    "SignVerError",
    "get_image_crops",
    "visualize_boxes",
]
