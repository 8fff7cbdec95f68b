#!/usr/bin/env bash
# Trains the detector on a CPU: configs/detector/cpu.yaml on a data set of your own.
#
#   scripts/train_cpu.sh data/signverod runs/detector [more arguments of training.train]
#
# The same command again continues an interrupted run.
set -euo pipefail
if [ $# -lt 2 ] || [ "$1" = --help ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
data=$(realpath -m "$1") model_dir=$(realpath -m "$2")
shift 2
# Paths in the environment are the caller's, who may stand elsewhere; a Python without a slash is a command.
VENV=${VENV:+$(realpath -ms "$VENV")}
SIGNVER_DATA=${SIGNVER_DATA:+$(realpath -ms "$SIGNVER_DATA")}
case ${SIGNVER_PYTHON:-} in */*) SIGNVER_PYTHON=$(realpath -ms "$SIGNVER_PYTHON") ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
export PATH="${VENV:-$PWD/.venv}/bin:$PATH" TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
exec python -m training.train --experiment=retinanet_signverod --mode=train_and_eval \
  --config_file=configs/detector/cpu.yaml --model_dir="$model_dir" \
  --params_override="{task: {train_data: {input_path: '$data/train*'}, validation_data: {input_path: '$data/eval*'}}}" \
  "$@"
