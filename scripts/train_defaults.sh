#!/usr/bin/env bash
# The default models from a seed: synthetic pages, writers and noise alone.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: scripts/train_defaults.sh [detector|cleaner|extractor|bundle|all]...

  detector   pages, runs at 384², 448² and 512², each from the one before, ONNX, proof   OUTPUT/detector
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
# Training pages, passes over them at 384² and at 448², then over as many new ones; the last two runs, at 512²,
# see pages of their own, as often as configs/detector/default.yaml says.
detector_pages=2400 detector_epochs_384=5.0 detector_epochs_448=6.0 detector_epochs_more=2.0
detector_last_pages=3600 detector_final_pages=3000

inputs() { # inputs TRAIN_FOLDER [EVAL_FOLDER]: one folder for both by default
  echo "train_data: {input_path: '$1/train*'}, validation_data: {input_path: '${2:-$1}/eval*'}"
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

pages() { # pages FOLDER SEED COUNT EVAL_COUNT MARGIN; boxes leave millimetres around the ink, as people do
  make_once "$1" python -m training.data synthesize pages --output "$1" --count "$3" --eval_count "$4" \
    --seed "$2" --long_side 640 --margin "$5" --shards 8 --processes "$processes"
}

detect() { # detect MODEL_DIR TRAIN_DATA MODE MORE_OF_TASK SCHEDULE
  python -m training.train --experiment=retinanet_signverod --mode="$3" --model_dir="$1" \
    --config_file=configs/detector/default.yaml --params_override="{
      task: {$(inputs "$2" "$output/final_pages"), $4},
      schedule: {$5}}"
}

side() { # side PIXELS: input size
  echo "model: {input_size: [$1, $1, 3]}"
}

from() { # from MODEL_DIR
  echo "init_checkpoint: '$1', init_checkpoint_modules: all"
}

detector() {
  local pages=$output/pages more=$output/more_pages last=$output/last_pages final=$output/final_pages
  local runs=("$output"/detector_{384,448,more,512}) model_dir=$output/detector
  pages "$pages" "$seed" "$detector_pages" 8 1.0
  pages "$more" $((seed + 1)) "$detector_pages" 8 1.0
  pages "$last" $((seed + 2)) "$detector_last_pages" 8 1.0
  pages "$final" $((seed + 3)) "$detector_final_pages" 200 1.5
  detect "${runs[0]}" "$pages" train "$(side 384)" "epochs: $detector_epochs_384, decay: constant"
  detect "${runs[1]}" "$pages" train "$(side 448), $(from "${runs[0]}")" "epochs: $detector_epochs_448"
  detect "${runs[2]}" "$more" train "$(side 448), $(from "${runs[1]}")" \
    "epochs: $detector_epochs_more, learning_rate: 0.0015"
  detect "${runs[3]}" "$last" train "$(from "${runs[2]}")" ""
  detect "$model_dir" "$final" train_and_eval "$(from "${runs[3]}")" ""
  if [ ! -e "$model_dir/detector.onnx" ]; then
    # The score to keep boxes from is read off held-out synthetic pages, then written into the file.
    local draft=$model_dir/draft.onnx
    python -m export onnx --model_dir "$model_dir" --output "$draft"
    python benchmarks/score_threshold.py --detector "$draft" --pages "$final/eval*" \
      >"$model_dir/score_threshold"
    python -m export onnx --model_dir "$model_dir" --score_threshold "$(cat "$model_dir/score_threshold")" \
      --output "$model_dir/detector.onnx"
    rm "$draft"
  fi
  python -m export validate --model_dir "$model_dir" --onnx "$model_dir/detector.onnx" \
    --pages "$final/eval*" --output "$model_dir/validation.json"
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
