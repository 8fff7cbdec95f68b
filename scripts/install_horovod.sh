#!/usr/bin/env bash
# Builds stock Horovod with MPI into .venv, for runs of several processes on CPUs. A single process and
# the Habana image, which holds Habana's own Horovod, do not need it.
#
#   scripts/install_horovod.sh
#
# Installs Debian's Open MPI, CMake and compiler where they are missing and this user may (root or sudo);
# else says how. Takes about two minutes on two cores; the built wheel is kept in pip's cache.
# environment: VENV, SIGNVER_PYTHON as in setup.sh
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if asked_for_help "$@"; then
  head_comment 9
  exit 0
fi
to_root VENV SIGNVER_PYTHON
version=0.28.1
packages=(openmpi-bin libopenmpi-dev cmake g++)

fail() {
  printf 'error: %s\n' "$@" >&2
  exit 2
}

scripts/setup.sh
python=${VENV:-$PWD/.venv}/bin/python
if "$python" -c 'import habana_frameworks' 2>/dev/null; then
  fail "this environment holds Habana's TensorFlow; its own Horovod (habana-horovod) must not be replaced."
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if ! command -v mpirun >/dev/null || ! command -v cmake >/dev/null || ! command -v g++ >/dev/null; then
  [ ${#missing[@]} -gt 0 ] || fail "mpirun, cmake or g++ is not on the PATH."
  elevate=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || fail "these are missing: ${missing[*]}" "sudo apt-get install ${missing[*]}"
    elevate=(sudo -n)
  fi
  echo "horovod: installing ${missing[*]}" >&2
  "${elevate[@]}" apt-get -qq update
  "${elevate[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" \
    >/dev/null || fail "apt-get could not install ${missing[*]}; its message stands above."
fi

works() {
  "$python" -W ignore -c "import horovod, horovod.tensorflow as hvd; assert horovod.__version__ == '$version' and hvd.mpi_built()" 2>/dev/null
}
works && exit 0
echo "horovod: building $version for $("$python" -c 'import importlib.metadata as m; print("TensorFlow", m.version("tensorflow"))')" >&2
# Built against the TensorFlow that is there: an isolated build would fetch another one.
env HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_MPI=1 \
  HOROVOD_WITHOUT_GLOO=1 PATH="$(dirname "$python"):$PATH" \
  "$python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation "horovod==$version" ||
  fail "Horovod $version could not be built; pip's message stands above."
works || fail "Horovod $version was built, but does not load with MPI in $python."
echo "horovod: $version with MPI is ready" >&2
