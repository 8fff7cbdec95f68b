#!/usr/bin/env bash
# Trains the detector on a CPU: configs/detector/cpu.yaml on a data set of your own.
#
#   scripts/train_cpu.sh data/signverod runs/detector [more arguments of training.train, --params_override too]
#
# The same command again continues an interrupted run.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if asked_for_help "$@"; then
  head_comment 6
  exit 0
fi
if [ $# -lt 2 ]; then
  head_comment 6 >&2
  exit 2
fi
data=$(realpath -m "$1") model_dir=$(realpath -m "$2")
shift 2
to_root VENV SIGNVER_PYTHON SIGNVER_DATA

use_environment
exec python -m training.train --experiment=retinanet_signverod --mode=train_and_eval \
  --config_file=configs/detector/cpu.yaml --model_dir="$model_dir" \
  --params_override="{task: {train_data: {input_path: '$data/train*'}, validation_data: {input_path: '$data/eval*'}}}" \
  "$@"
