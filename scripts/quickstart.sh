#!/usr/bin/env bash
# Synthetic pages and signatures to one proven bundle of trained models, with a report.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: scripts/quickstart.sh [--smoke | --from_scratch] [--fresh] [--output FOLDER]

Trains a signature detector, a cleaner and an extractor in front of you, on this machine's CPU, proves
their ONNX files, and leaves one bundle that the SDK loads:

  setup        .venv with pinned packages                 (once; about 3 GB)
  data         synthetic pages with exact boxes           OUTPUT/data
  check        every record looked at before training
  train        the detector that ships, on from there to  OUTPUT/detector
               384² and so twice as fast; best checkpoint by AP
  saved_model  for TensorFlow                             OUTPUT/detector/saved_model
  onnx         for ONNX Runtime, in any language          OUTPUT/detector/detector.onnx
  validate     TensorFlow against ONNX Runtime            OUTPUT/validation.json
  signatures   synthetic signatures, genuine and forged   OUTPUT/signatures
  cleaner      the cleaner that ships, on from there;     OUTPUT/cleaner
               saved_model, onnx and validate as above    OUTPUT/cleaner_validation.json
  extractor    the extractor that ships, fitted to them   OUTPUT/extractor
  bundle       all three models exported and proven once  OUTPUT/bundle
               more, with what an SDK needs to use them
  report       curves, figures, pages, before and after,  OUTPUT/report.html
               genuine against forged

Six minutes on two cores with AVX-512 after the setup, a quarter of an hour and more without. A step
whose result is there, made from the same inputs, is not repeated; an interrupted training continues
where it stopped.

  --from_scratch   all trained from random weights, on more pages; 23 minutes on two cores with AVX-512,
                   an hour and more without; default folder runs/from_scratch
  --smoke          the same path in about two minutes with tiny models, which learn next to nothing
                   (so validation compares its heads and demands no found box); default folder runs/smoke
  --fresh          forget earlier results in OUTPUT
  --output FOLDER  default runs/quickstart

environment: PROCESSES (default: all cores) for the page generator; VENV and SIGNVER_PYTHON as in setup.sh
next:        signver annotate PAGE --bundle OUTPUT/bundle --output FOLDER
             scripts/finetune.sh --help          the same on your own pages
             python -m training.train --help     other data, other sizes
             python -m export --help             other exports of the trained detector
TEXT
}

wrong() {
  printf 'error: %s\nsee scripts/quickstart.sh --help\n' "$1" >&2
  exit 2
}

size=quickstart fresh='' output=''
while [ $# -gt 0 ]; do
  case $1 in
    --smoke) size=smoke ;;
    --from_scratch) size=cpu ;;
    --fresh) fresh=yes ;;
    --output) [ -n "${2:-}" ] || wrong "--output needs a folder" && output=$2 && shift ;;
    --output=?*) output=${1#--output=} ;;
    -h | --help) usage && exit 0 ;;
    *) wrong "unknown argument '$1'" ;;
  esac
  shift
done

from=$PWD
to_root VENV SIGNVER_PYTHON
case $size in
  smoke) name=smoke count=16 eval_count=6 minimum=0 writers=8 extractor_size=smoke ;;
  quickstart) name=quickstart count=400 eval_count=100 minimum=10 writers=100 extractor_size=quickstart ;;
  # The recipe that ships starts from nothing and is the quickest: its `cpu.yaml` learns by gradient.
  cpu) name=from_scratch count=1000 eval_count=150 minimum=10 writers=200 extractor_size=default ;;
esac
output=${output:-$PWD/runs/$name}
case $output in
  *[,\'\"*?\[]*) wrong "--output '$output': no commas, quotes or wildcards in the folder's name, please" ;;
  /*) ;;
  *) output=$from/$output ;;
esac
mkdir -p "$output/.steps" 2>/dev/null || wrong "cannot write to $output"
[ -z "$fresh" ] || rm -rf "$output"/{data,detector,signatures,cleaner,extractor,bundle,validation.json,cleaner_validation.json,report.html,.steps}
mkdir -p "$output/.steps"

use_environment
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}

# A step's key is a hash over its command and the key before it. `NAME.key` is written when a step begins,
# `NAME.done` when it ended well: the same key goes on where it stopped, another key starts from nothing.
key=
step() { # step NAME RESULT COMMAND...
  local name=$1 result=$2 begun=$SECONDS
  local stamp=$output/.steps/$name
  shift 2
  key=$(printf '%s\n' "$key" "$@" | sha256sum)
  if [ "$(cat "$stamp.done" 2>/dev/null)" = "$key" ] && [ -e "$result" ]; then
    printf '== %-19s done before\n' "$name"
    return
  fi
  if [ -e "$stamp.key" ] && [ "$(cat "$stamp.key")" != "$key" ] && [ "$name" != check ]; then
    rm -rf "$result"
  fi
  printf '== %-19s %s\n' "$name" "$*"
  rm -f "$stamp.done"
  echo "$key" >"$stamp.key"
  "$@"
  echo "$key" >"$stamp.done"
  printf '== %-19s %d s\n' "$name" $((SECONDS - begun))
}

data=$output/data detector=$output/detector
onnx=$detector/detector.onnx validation=$output/validation.json report=$output/report.html
inputs="{task: {train_data: {input_path: '$data/train*'}, validation_data: {input_path: '$data/eval*'}}}"

step data "$data" python -m training.data synthesize pages --output "$data" --count "$count" \
  --eval_count "$eval_count" --seed 7 --classes signverod --margin 1.2 --processes "${PROCESSES:-$(nproc)}"
step check "$data" python -m training.data check "$data"
key+=$(cat configs/detector/*.yaml models/weights/detector/* | sha256sum)
step train "$detector" python -m training.train --experiment=retinanet_signverod --mode=train_and_eval \
  --model_dir="$detector" --config_file="configs/detector/$size.yaml" --params_override="$inputs"
step saved_model "$detector/saved_model" python -m export saved_model --model_dir "$detector" \
  --output "$detector/saved_model"
step onnx "$onnx" python -m export onnx --model_dir "$detector" --output "$onnx"
step validate "$validation" python -m export validate --model_dir "$detector" --onnx "$onnx" \
  --pages "$data/eval*" --minimum_detections "$minimum" --output "$validation"

signatures=$output/signatures cleaner=$output/cleaner cleaner_validation=$output/cleaner_validation.json
cleaner_onnx=$cleaner/cleaner.onnx
inputs="{task: {train_data: {input_path: '$signatures/train*'}, validation_data: {input_path: '$signatures/eval*'}}}"
step signatures "$signatures" python -m training.data synthesize signatures --output "$signatures" --seed 7 \
  --writers "$writers" --eval_writers $((writers / 8 + 1)) --processes "${PROCESSES:-$(nproc)}"
key+=$(cat configs/cleaner/*.yaml models/weights/cleaner/* | sha256sum)
step cleaner "$cleaner" python -m training.train --experiment=cleaner_unet --mode=train_and_eval \
  --model_dir="$cleaner" --config_file="configs/cleaner/$size.yaml" --params_override="$inputs"
step cleaner_saved_model "$cleaner/saved_model" python -m export saved_model --model_dir "$cleaner" \
  --output "$cleaner/saved_model"
step cleaner_onnx "$cleaner_onnx" python -m export onnx --model_dir "$cleaner" --output "$cleaner_onnx"
step cleaner_validate "$cleaner_validation" python -m export validate --model_dir "$cleaner" \
  --onnx "$cleaner_onnx" --pages "$signatures/eval*" --synthetic 20 --minimum_detections "$minimum" \
  --output "$cleaner_validation"

extractor=$output/extractor bundle=$output/bundle
key+=$(cat configs/extractor/*.yaml models/weights/extractor/* | sha256sum)
step extractor "$extractor" python -m training.train --experiment=extractor_metric --mode=train_and_eval \
  --model_dir="$extractor" --config_file="configs/extractor/$extractor_size.yaml" --params_override="$inputs"
step bundle "$bundle" python -m export bundle --detector "$detector" --cleaner "$cleaner" \
  --extractor "$extractor" --minimum_detections "$minimum" --output "$bundle"

step report "$report" python -m export report --model_dir "$detector" --onnx "$onnx" --data "$data" \
  --validation "$validation" --cleaner "$cleaner" --cleaner_onnx "$cleaner_onnx" \
  --cleaner_data "$signatures" --cleaner_validation "$cleaner_validation" --extractor "$extractor" \
  --extractor_onnx "$bundle/extractor.onnx" --extractor_data "$signatures" --output "$report"

if [ "$size" = smoke ]; then
  outcome='Every step works here. The tiny models tell next to nothing; without --smoke they learn.'
else
  outcome='All three models are trained, exported and proven equal in TensorFlow and ONNX Runtime.'
fi
printf '\n%s (%d s)\nBundle: %s   (signver annotate PAGE --bundle … --output FOLDER)\nReport: %s\n' \
  "$outcome" "$SECONDS" "$bundle" "$report"
