#!/usr/bin/env bash
# Trains a model on all cards of one or several DL1 hosts: one process a card, through mpirun.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
usage: scripts/train_8hpu.sh [--dry-run] MODEL [arguments of training.train ...]

MODEL is detector, cleaner or extractor; its config is configs/MODEL/8hpu.yaml. More arguments go to
`python -m training.train`, for example

  scripts/train_8hpu.sh detector --model_dir=runs/detector
  scripts/train_8hpu.sh cleaner --params_override='{task: {train_data: {input_path: "data/cedar/train*"}}}'

The same command again continues an interrupted run. SIGTERM saves a checkpoint on all ranks and ends with 0.

  --dry-run   print the command, one argument a line, and run nothing

environment:
  DEVICE=hpu|cpu       cpu goes through the same launch on processors, with the tiny model of smoke.yaml
  NP=8                 processes on this host; with HOSTS or HOSTFILE, of all hosts together
  HOSTS=a:8,b:8        several hosts and their cards; ssh without a password between them, the same paths on
                       all, model_dir on a shared disk
  HOSTFILE=file        the same as a file of mpirun's; a host without slots=N has one card a line
  SSH_PORT=3022        port of the containers' ssh
  NETWORK=eth0         interface between the hosts
  SIGNVER_DATA=folder  stands for the data/ of the configs, on every host
  MODEL_DIR=runs/MODEL where checkpoints go (runs/MODEL-cpu for DEVICE=cpu)
  CORES_PER_CARD=6     default: physical cores of a socket of this host over its processes
  HANG_SECONDS=60      a rank that the others wait for longer ends the job
  PREFLIGHT=yes        first python -m training.preflight with the same config; what it blocks is not started

Paths in the environment are taken from where you stand, those in arguments from the project's folder.
TEXT
}

wrong() {
  printf 'error: %s\nsee scripts/%s --help\n' "$1" "$(basename "$0")" >&2
  exit 2
}

number() { # number NAME VALUE: refuses what is no whole number from 1 on
  case $2 in '' | *[!0-9]* | 0) wrong "$1='$2' is no whole number from 1 on" ;; esac
}

dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=yes && shift ;;
    -h | --help) usage && exit 0 ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || wrong "which MODEL? detector, cleaner or extractor"
model=$1
shift
case $model in
  detector) experiment=retinanet_signverod ;;
  cleaner) experiment=cleaner_unet ;;
  extractor) experiment=extractor_metric ;;
  *) wrong "unknown MODEL '$model': detector, cleaner or extractor" ;;
esac

to_root VENV HOSTFILE MODEL_DIR SIGNVER_DATA MPI_ROOT TF_RECIPE_CACHE_PATH
device=${DEVICE:-hpu} config=${CONFIG:-8hpu}
case $device in hpu | cpu) ;; *) wrong "DEVICE='$device': hpu or cpu" ;; esac
# What the tiny model leaves must not stand where the real one will go on.
[ "$device" = hpu ] || MODEL_DIR=${MODEL_DIR:-runs/$model-cpu}
[ -z "${HOSTS:-}" ] || [ -z "${HOSTFILE:-}" ] || wrong "HOSTS and HOSTFILE say the same; set one"

# Prints the slots of a hostfile: of all hosts, of the first one, of the fullest one. As mpirun counts them: a host
# without a number has one a line.
count_slots() {
  awk '{ sub(/#.*/, ""); gsub(/[ \t]*=[ \t]*/, "=") }
    NF {
      slots = 1
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^max[-_]slots=/) slots = substr($i, 11)
        if ($i ~ /^slots=/) { slots = substr($i, 7); break }
      }
      if (first == "") first = $1
      total += slots
      of[$1] += slots
      if (of[$1] > most) most = of[$1]
    }
    END { print total + 0, of[first] + 0, most + 0 }' "$1"
}

# How many processes in all, how many of them on this host (the first one), and how many on the fullest host.
total=8 local='' most=''
if [ -n "${HOSTS:-}" ]; then
  total=0
  for host in ${HOSTS//,/ }; do
    case $host in *:*) ;; *) wrong "HOSTS='$HOSTS': write name:cards, as in a:8,b:8" ;; esac
    count=${host##*:}
    number "HOSTS, cards of ${host%%:*}" "$count"
    total=$((total + count)) local=${local:-$count}
    [ "$count" -le "${most:-0}" ] || most=$count
  done
elif [ -n "${HOSTFILE:-}" ]; then
  [ -r "$HOSTFILE" ] || wrong "HOSTFILE='$HOSTFILE': no such file"
  counts=$(count_slots "$HOSTFILE")
  read -r total local most <<<"$counts"
  number "HOSTFILE $HOSTFILE, sum of slots" "$total"
fi
processes=${NP:-$total}
number NP "$processes"
local=${local:-$processes} most=${most:-$processes}

# A launcher that only starts other hosts (Kubernetes) has no card of its own to count.
if [ "$device" = hpu ] && [ -z "$dry" ]; then
  several=${HOSTS:-}${HOSTFILE:-}
  command -v hl-smi >/dev/null || [ -n "$several" ] ||
    wrong "no hl-smi here: Habana's driver is not installed, or this is not its container; DEVICE=cpu NP=2 runs dry"
  cards=$(hl-smi -Q index -f csv,noheader 2>/dev/null | grep -c '[0-9]' || true)
  [ "$cards" -ge "$local" ] || { [ "$cards" = 0 ] && [ -n "$several" ]; } ||
    wrong "hl-smi lists $cards cards, $local are asked for"
fi

# Every process gets its share of the physical cores of its socket (Habana's scaling guide). mpirun deals processes
# out to the sockets in turn, and refuses a share that one socket does not have.
listing=$(lscpu --all --parse=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u || true)
cores=$(grep -c . <<<"$listing" || true)
sockets=$(cut -d, -f2 <<<"$listing" | sort -u | wc -l)
per_socket=$(((most + sockets - 1) / sockets))
share=${CORES_PER_CARD:-$((cores / sockets / per_socket))}
if [ "$share" -ge 1 ]; then
  placement=(--bind-to core --map-by "socket:PE=$share")
else
  placement=(--bind-to none --oversubscribe)
fi

[ -x "${VENV:-$PWD/.venv}/bin/python" ] && PATH="${VENV:-$PWD/.venv}/bin:$PATH"
launch=(mpirun)
[ "$(id -u)" != 0 ] || launch+=(--allow-run-as-root)
launch+=(--tag-output --merge-stderr-to-stdout "${placement[@]}" -np "$processes")
if [ -n "${HOSTS:-}${HOSTFILE:-}" ]; then
  [ -z "${HOSTS:-}" ] || launch+=(-H "$HOSTS")
  # A host without a number has one slot, as counted above, and not as many as it has cores.
  [ -z "${HOSTFILE:-}" ] || launch+=(--hostfile "$HOSTFILE" --mca orte_set_default_slots none)
  [ -z "${MPI_ROOT:-}" ] || launch+=(--prefix "$MPI_ROOT")
  network=${NETWORK:-eth0}
  launch+=(--mca plm_rsh_args "-p${SSH_PORT:-3022}" --mca btl_tcp_if_include "$network")
  launch+=(-x "HCCL_SOCKET_IFNAME=$network" -x RDMAV_FORK_SAFE=1 -x FI_EFA_USE_DEVICE_RDMA=1)
  launch+=(-x PATH -x PYTHONPATH)
  [ -z "${SIGNVER_DATA:-}" ] || launch+=(-x SIGNVER_DATA)
fi
# A job that waits for one rank ends, with the rank named, instead of waiting while the meter runs.
hang=${HANG_SECONDS:-60}
number HANG_SECONDS "$hang"
launch+=(-x "HOROVOD_STALL_CHECK_TIME_SECONDS=$((hang / 3 + 1))" -x "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS=$hang")
launch+=(-x "TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}" -x "PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}")
files=(--config_file="configs/$model/$config.yaml")
if [ "$device" = hpu ]; then
  launch+=(-x TF_ENABLE_DYNAMIC_SHAPES=false -x TF_DISABLE_EAGER_TO_FUNC_REWRITER=1)
  launch+=(-x "TF_RECIPE_CACHE_PATH=${TF_RECIPE_CACHE_PATH:-/tmp/signver_recipes}")
else
  files+=(--config_file="configs/$model/smoke.yaml")
fi
launch+=(python -m training.train "--experiment=$experiment" --mode=train_and_eval "--device=$device")
launch+=("--model_dir=${MODEL_DIR:-runs/$model}" "${files[@]}" "$@")

if [ -n "$dry" ]; then
  printf '%s\n' "${launch[@]}"
  exit 0
fi
if [ "${PREFLIGHT:-no}" = yes ] && [ "$device" = hpu ]; then
  # What decides the config, in one word or in two; preflight does not know the other options of a training.
  settings=() value=''
  for argument in "${files[@]}" "$@"; do
    case $argument in
      --experiment | --config_file | --params_override | --data_dir) settings+=("$argument") value=next ;;
      --experiment=* | --config_file=* | --params_override=* | --data_dir=*) settings+=("$argument") value='' ;;
      *)
        [ -z "$value" ] || settings+=("$argument")
        value=''
        ;;
    esac
  done
  python -m training.preflight "--experiment=$experiment" --cards="$processes" "${settings[@]}" || {
    printf 'error: preflight blocks this run; PREFLIGHT=no starts it all the same\n' >&2
    exit 1
  }
fi
command -v mpirun >/dev/null || wrong "no mpirun here; scripts/install_horovod.sh installs Open MPI and Horovod"

# mpirun kills its job on SIGTERM within a second; SIGUSR1 it hands on, and every rank then saves and ends.
"${launch[@]}" &
job=$!
trap 'kill -USR1 "$job" 2>/dev/null || true' TERM INT
code=0
wait "$job" || code=$?
# A trapped signal ends `wait` early; the job itself ends later, with its own code.
while kill -0 "$job" 2>/dev/null; do
  code=0
  wait "$job" || code=$?
done
exit "$code"
