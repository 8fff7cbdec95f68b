#!/usr/bin/env bash
# Trains a model on one Gaudi card: configs/MODEL/1hpu.yaml, one process, the launch of train_8hpu.sh.
#
#   scripts/train_1hpu.sh [--dry-run] MODEL [arguments of training.train ...]
#
# MODEL is detector, cleaner or extractor. DEVICE=cpu runs the same on a processor with the tiny model of smoke.yaml.
# HABANA_VISIBLE_MODULES=3 takes card 3. More in scripts/train_8hpu.sh --help.
set -euo pipefail
case ${1:---help} in
  -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
[ -z "${HOSTS:-}${HOSTFILE:-}" ] || {
  printf 'error: one card is on one host; unset HOSTS and HOSTFILE, or take train_8hpu.sh\n' >&2
  exit 2
}
exec env NP=1 CONFIG=1hpu "$(dirname "${BASH_SOURCE[0]}")/train_8hpu.sh" "$@"
