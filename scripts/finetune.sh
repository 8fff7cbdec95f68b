#!/usr/bin/env bash
# Fine-tunes a model that ships with the project on pages or signatures of your own.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: scripts/finetune.sh detector SOURCE OUTPUT     SOURCE: a YOLO folder, or the JSON file of a COCO export
       scripts/finetune.sh extractor SOURCE OUTPUT    SOURCE: WRITER/genuine and WRITER/forged folders, or CEDAR;
                                                      without forgeries there is no threshold, so they are needed

Converts the source (OUTPUT/data: a fifth of the documents or writers is held out), trains from models/weights,
exports ONNX, proves it, and leaves everything in OUTPUT; the same command goes on where it was interrupted.
Classes of a detector are numbered from 1: signature, initials, redaction, date; fewer are no mistake, another order
is (an export may sort them): CONVERT=--classes=signature,initials,redaction,date finds them by name.

environment: IMAGES (COCO: where the pages are; default: images/ beside the JSON file, else its own folder),
             CONVERT (more options of training.data convert, e.g. "--names=signature --document_pattern=^(.*)_"),
             VENV and SIGNVER_PYTHON as in setup.sh
TEXT
}

if [ $# -eq 1 ] && { [ "$1" = -h ] || [ "$1" = --help ]; }; then
  usage
  exit 0
fi
if [ $# -ne 3 ] || { [ "$1" != detector ] && [ "$1" != extractor ]; }; then
  usage >&2
  exit 2
fi
model=$1 source=$(realpath -m "$2") output=$(realpath -m "$3")
if [ ! -e "$source" ]; then
  printf 'error: %s: no such file or folder\n' "$source" >&2
  exit 2
fi
to_root VENV SIGNVER_PYTHON IMAGES
use_environment
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}

made_from=$(printf '%s %s, IMAGES=%s, CONVERT=%s' "$model" "$source" "${IMAGES:-}" "${CONVERT:-}")
if [ -e "$output/data" ] && [ "$(cat "$output/made_from" 2>/dev/null || echo "$made_from")" != "$made_from" ]; then
  printf 'error: %s was made from another source (%s); name another OUTPUT or remove it\n' \
    "$output" "$(cat "$output/made_from")" >&2
  exit 2
fi
if [ ! -e "$output/data" ]; then
  mkdir -p "$output"
  echo "$made_from" >"$output/made_from"
  read -ra more <<<"${CONVERT:-}"
  case $model in
    extractor) python -m training.data convert signatures --input "$source" --output "$output/data" "${more[@]}" ;;
    detector)
      if [ -d "$source" ]; then
        python -m training.data convert yolo --input "$source" --output "$output/data" --max_side 1000 "${more[@]}"
      else
        images=$(dirname "$source")
        [ ! -d "$images/images" ] || images=$images/images
        python -m training.data convert coco --annotations "$source" --images "${IMAGES:-$images}" \
          --output "$output/data" --max_side 1000 "${more[@]}"
      fi
      ;;
  esac
fi
held_out_card() { # held_out_card EXPRESSION: of what the data set's card says of the held-out split
  python -c "import json, sys; card = json.load(open(sys.argv[1]))['splits']['eval']; print($1)" \
    "$output/data/dataset_card.json" 2>/dev/null || true
}
if [ "$model" = extractor ] && [ "$(held_out_card "card['boxes'].get('forged', 0)")" = 0 ]; then
  printf 'error: %s: no forgery among the writers held out, so no threshold could be told.\n' "$source" >&2
  printf 'Give WRITER/forged folders too, for several writers; without any, keep to the model that ships.\n' >&2
  exit 2
fi
held_out=$(held_out_card "card['documents']")
if [ "${held_out:-5}" -lt 5 ]; then
  printf 'warning: documents or writers held out: %s. What is measured on so few says little, and an extractor takes\n' \
    "$held_out" >&2
  printf 'its threshold and its probabilities from them. Give more, or keep to the model that ships.\n' >&2
fi
experiment=retinanet_signverod
[ "$model" = detector ] || experiment=extractor_metric
python -m training.train --experiment="$experiment" --mode=train_and_eval --model_dir="$output/run" \
  --config_file="configs/$model/finetune.yaml" --params_override="{task: {
    train_data: {input_path: '$output/data/train*'}, validation_data: {input_path: '$output/data/eval*'}}}"
python -m export onnx --model_dir "$output/run" --output "$output/$model.onnx"
# Synthetic ones too: few held-out pages hold too few signatures to prove anything on.
python -m export validate --model_dir "$output/run" --onnx "$output/$model.onnx" --pages "$output/data/eval*" \
  --synthetic 20 --output "$output/validation.json"
printf '\n%s: signver --help says how to use it.\n' "$output/$model.onnx"
