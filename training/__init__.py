"""Training of detectors, cleaners and extractors, from data to checkpoints."""

import warnings

# Of what TensorFlow brings along; who runs a training can do nothing about it.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
