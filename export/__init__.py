"""From checkpoints to files that are shipped, and the proof that these are equal."""

import training  # noqa: F401  # first, for the warnings that it keeps quiet
