#!/usr/bin/env bash
# Every check of the project: format, lint, types, tests. Arguments go to pytest; without any, everything is
# tested, on as many cores as there are, four at most: a training takes 3 GB.
#
#   scripts/test.sh                     # everything
#   scripts/test.sh -m 'not slow'       # what takes seconds
#   scripts/test.sh tests/signver -x
#
# TEST_WORKERS=1           one test after the other
# SIGNVER_TEST_TORCH=yes   installs PyTorch too, so that the tests of `export siamese` run instead of skipping
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
to_root VENV SIGNVER_PYTHON SIGNVER_SHARED_DATA

use_environment
# The whole run also tests several processes, where Horovod can be had; without it those tests skip.
[ $# -gt 0 ] || scripts/install_horovod.sh || echo 'no Horovod: the tests of several ranks will be skipped' >&2
if [ $# -eq 0 ] && [ "${SIGNVER_TEST_TORCH:-no}" = yes ]; then
  "${VENV:-$PWD/.venv}/bin/python" -m pip install -qq --disable-pip-version-check -r requirements/siamese.txt ||
    echo 'no PyTorch: the tests of the Siamese export will be skipped' >&2
fi

failed=()
check() { # check NAME COMMAND...: runs it, and remembers a failure instead of stopping at the first
  printf '== %s\n' "$1"
  "${@:2}" || failed+=("$1")
}

check 'ruff' ruff check .
check 'ruff format' ruff format --check .
check 'mypy' mypy
if [ $# -eq 0 ]; then
  cores=$(nproc)
  set -- --numprocesses="${TEST_WORKERS:-$((cores < 4 ? cores : 4))}" --dist=loadfile --no-loadscope-reorder
fi
check 'pytest' python -m pytest "$@"

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "$(IFS=, && echo "${failed[*]}")" >&2
  exit 1
fi
