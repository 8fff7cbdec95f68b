#!/usr/bin/env bash
# The default models from a seed: synthetic pages, writers and noise alone.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: scripts/train_defaults.sh [detector|cleaner|extractor|bundle|all]...

  detector   pages, a run at 384², one at 512² that starts from it, ONNX, proof   OUTPUT/detector
  cleaner    signatures, a U-Net on noisy crops, ONNX, proof               OUTPUT/cleaner
  extractor  signatures, components of what is known, ONNX, proof          OUTPUT/extractor
  bundle     the three ONNX files as one bundle                            models/default
             and the weights to fine-tune from                             models/weights

Each stage is seeded and goes on where it was interrupted; what is there is not made again.

environment: OUTPUT (default runs/default), PROCESSES for the generators (default: all cores),
             VENV and SIGNVER_PYTHON as in setup.sh
TEXT
}

to_root VENV SIGNVER_PYTHON OUTPUT
output=$(realpath -m "${OUTPUT:-runs/default}")
processes=${PROCESSES:-$(nproc)}
seed=8
# Passes over the pages at 384²; how many follow at 512², configs/detector/default.yaml says.
detector_pages=8000 detector_epochs_384=3.0

inputs() { # inputs FOLDER
  echo "train_data: {input_path: '$1/train*'}, validation_data: {input_path: '$1/eval*'}"
}

make_once() { # make_once RESULT COMMAND...: commands of this project write whole results or none
  local result=$1
  shift
  if [ -e "$result" ]; then
    echo "== $result is there"
  else
    "$@"
  fi
}

detect() { # detect MODEL_DIR MODE MORE_OF_TASK SCHEDULE
  python -m training.train --experiment=retinanet_signverod --mode="$2" --model_dir="$1" \
    --config_file=configs/detector/default.yaml --params_override="{
      task: {$(inputs "$output/pages"), $3},
      schedule: {$4}}"
}

detector() {
  local pages=$output/pages small=$output/detector_384 model_dir=$output/detector
  # Boxes leave room around the ink, as people do.
  make_once "$pages" python -m training.data synthesize pages --output "$pages" --count "$detector_pages" \
    --eval_count 200 --seed "$seed" --long_side 640 --margin 1.2 --shards 8 --processes "$processes"
  detect "$small" train "model: {input_size: [384, 384, 3]}" "epochs: $detector_epochs_384, decay: constant"
  detect "$model_dir" train_and_eval "init_checkpoint: '$small', init_checkpoint_modules: all" ""
  if [ ! -e "$model_dir/detector.onnx" ]; then
    # The score to keep boxes from is read off held-out synthetic pages, then written into the file.
    local draft=$model_dir/draft.onnx
    python -m export onnx --model_dir "$model_dir" --output "$draft"
    python benchmarks/score_threshold.py --detector "$draft" --pages "$pages/eval*" \
      >"$model_dir/score_threshold"
    python -m export onnx --model_dir "$model_dir" --score_threshold "$(cat "$model_dir/score_threshold")" \
      --output "$model_dir/detector.onnx"
    rm "$draft"
  fi
  python -m export validate --model_dir "$model_dir" --onnx "$model_dir/detector.onnx" \
    --pages "$pages/eval*" --output "$model_dir/validation.json"
}

signatures() {
  make_once "$output/signatures" python -m training.data synthesize signatures \
    --output "$output/signatures" --writers 1200 --eval_writers 50 --genuine 8 --forged 6 --seed "$seed" \
    --processes "$processes"
}

from_signatures() { # from_signatures NAME EXPERIMENT: trains on the signatures, exports, proves
  signatures
  local name=$1 model_dir=$output/$1
  python -m training.train --experiment="$2" --mode=train_and_eval --model_dir="$model_dir" \
    --config_file="configs/$name/default.yaml" --params_override="{task: {$(inputs "$output/signatures")}}"
  make_once "$model_dir/$name.onnx" python -m export onnx --model_dir "$model_dir" \
    --output "$model_dir/$name.onnx"
  python -m export validate --model_dir "$model_dir" --onnx "$model_dir/$name.onnx" \
    --pages "$output/signatures/eval*" --output "$model_dir/validation.json"
}

cleaner() { from_signatures cleaner cleaner_unet; }

extractor() { from_signatures extractor extractor_metric; }

bundle() {
  python -m export bundle --detector "$output/detector" --cleaner "$output/cleaner" \
    --extractor "$output/extractor" --score_threshold "$(cat "$output/detector/score_threshold")" \
    --output models/default
  for name in detector cleaner extractor; do
    python -m export weights --model_dir "$output/$name" --output "models/weights/$name"
  done
}

[ $# -gt 0 ] || set -- all
for stage in "$@"; do
  case $stage in
    detector | cleaner | extractor | bundle | all) ;;
    -h | --help) usage && exit 0 ;;
    *)
      printf "error: unknown stage '%s'\n" "$stage" >&2
      usage >&2
      exit 2
      ;;
  esac
done
use_environment
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}
for stage in "$@"; do
  if [ "$stage" = all ]; then
    # One by one: in a list of && bash would go on after what fails inside a stage.
    for part in detector cleaner extractor bundle; do "$part"; done
  else
    "$stage"
  fi
done
