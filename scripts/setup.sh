#!/usr/bin/env bash
# Makes the environment that every other script runs in: .venv with the pins of requirements/.
#
#   scripts/setup.sh            # a few minutes and 3 GB the first time, at once after that
#
# SIGNVER_PYTHON=/path/to/python   the interpreter to take, 3.10 or 3.11; found by itself otherwise
# VENV=folder                      where the environment lies (default .venv). A folder that holds an
#                                  environment of your own is used as it is; nothing is installed there.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
to_root VENV SIGNVER_PYTHON

own_choice=${VENV:+yes}
venv=${VENV:-.venv}
marker=$venv/.signver-harness # made by this script; holds the hash of what is installed, and for which checkout

fail() {
  printf 'error: %s\n' "$@" >&2
  exit 2
}

version_of() { # prints MAJOR.MINOR, or nothing for a command that is missing or, as a pyenv shim can, fails
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

find_python() {
  local candidate
  local -a candidates=(python3.11 python3.10 python3 python)
  candidates+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[10].*/bin/python)
  [ -z "${SIGNVER_PYTHON:-}" ] || candidates=("$SIGNVER_PYTHON")
  for candidate in "${candidates[@]}"; do
    case $(version_of "$candidate") in
      3.10 | 3.11) echo "$candidate" && return ;;
    esac
  done
  [ -z "${SIGNVER_PYTHON:-}" ] || fail "SIGNVER_PYTHON=$SIGNVER_PYTHON is not a Python 3.10 or 3.11 that runs."
  fail "no Python 3.10 or 3.11 found (TensorFlow 2.15 runs on no later one); python3 here is $(version_of python3)." \
    "Install one, for example 'apt-get install python3.11 python3.11-venv', or name it in SIGNVER_PYTHON."
}

make_venv() {
  local python
  python=$(find_python) || exit 2
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python lacks the venv module; on Debian and Ubuntu: apt-get install python$(version_of "$python")-venv"
  echo "setup: $venv with Python $(version_of "$python")" >&2
  "$python" -m venv --clear "$venv" || fail "cannot make $venv; is the disk full or read-only?"
  : >"$marker"
}

if [ -n "$(version_of "$venv/bin/python")" ]; then
  if [ ! -e "$marker" ] && [ -n "$own_choice" ]; then
    exit 0
  fi
elif [ -e "$venv" ] && [ ! -e "$marker" ] && [ -n "$own_choice" ] && [ -n "$(ls -A "$venv")" ]; then
  fail "VENV=$venv exists and is no Python environment; name another folder."
else
  make_venv
fi

python=$venv/bin/python
version=$(version_of "$python")
requirements=requirements/cpu-$version.txt
[ -e "$requirements" ] || fail "$venv holds Python $version; remove the folder, so that it is made anew with 3.10 or 3.11."
# An editable install names the folder it was made in, so a moved checkout installs again.
wanted=$({ pwd && cat "$requirements" pyproject.toml; } | sha256sum)
{ read -r installed && read -r owner; } 2>/dev/null <"$marker" || true
[ "${installed:-}" != "$wanted" ] || exit 0
if [ -n "$own_choice" ] && [ -n "${owner:-}" ] && [ "$owner" != "$PWD" ] && [ -e "$owner/scripts/setup.sh" ]; then
  fail "VENV=$venv belongs to the checkout in $owner, whose code it would lose; name another folder."
fi

echo "setup: installing $requirements (about 3 GB, some minutes)" >&2
# Watched, pip shows its progress; in a log only what goes wrong. Packages that come as source are built as
# PEP 517 says: the pip of a fresh Python 3.10 would run their setup.py, which fails for some.
shown=-qq
[ ! -t 2 ] || shown=--progress-bar=on
"$python" -m pip install "$shown" --disable-pip-version-check --use-pep517 --requirement "$requirements" ||
  fail "pip could not install $requirements; its message stands above. Repeat to go on."
"$python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable . ||
  fail "pip could not install this checkout; its message stands above."
"$python" -m pip check --disable-pip-version-check >&2 || fail "the installed packages contradict each other."
printf '%s\n' "$wanted" "$PWD" >"$marker"
