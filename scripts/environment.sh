# Sourced by the other scripts: what they share. Nothing to run.
# shellcheck shell=bash

# to_root NAME...: makes the project's root the current folder. Paths in these variables are the caller's, who may
# stand elsewhere: they are made absolute before, and links keep their names.
to_root() {
  local name
  for name in "$@"; do
    case $name=${!name:-} in
      *=) ;;
      SIGNVER_PYTHON=*/*) printf -v "$name" '%s' "$(realpath -ms "${!name}")" ;;
      SIGNVER_PYTHON=*) ;; # a command
      *) printf -v "$name" '%s' "$(realpath -ms "${!name}")" ;;
    esac
  done
  cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
}

# asked_for_help [ARGUMENT...]: whether the first one is -h or --help.
asked_for_help() {
  [ "${1:-}" = -h ] || [ "${1:-}" = --help ]
}

# head_comment LINE: what the script says of itself, from its second line to this one.
head_comment() {
  sed -n "2,$1s/^# \{0,1\}//p" "$0"
}

# use_environment: the environment of setup.sh, made where it is not there, before all else on the PATH.
use_environment() {
  scripts/setup.sh
  export PATH="${VENV:-$PWD/.venv}/bin:$PATH" TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
}
