#!/usr/bin/env bash
# Exports a trained detector and proves the ONNX file equal to the model.
#
#   scripts/export.sh runs/detector data/signverod
#
# writes runs/detector/{saved_model,detector.onnx,validation.json}.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if asked_for_help "$@"; then
  head_comment 6
  exit 0
fi
if [ $# -ne 2 ]; then
  head_comment 6 >&2
  exit 2
fi
model_dir=$(realpath -m "$1") data=$(realpath -m "$2")
to_root VENV SIGNVER_PYTHON

use_environment
python -m export saved_model --model_dir "$model_dir" --output "$model_dir/saved_model"
python -m export onnx --model_dir "$model_dir" --output "$model_dir/detector.onnx"
python -m export validate --model_dir "$model_dir" --onnx "$model_dir/detector.onnx" --pages "$data/eval*" \
  --output "$model_dir/validation.json"
