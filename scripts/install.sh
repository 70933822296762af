#!/bin/sh
# Makes .venv with the versions of requirements.lock and this checkout, editable.
# It must be Python 3.10: dm-launchpad and the dm-reverb that goes with it end there.
set -eu
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; }

find_python() {
  for candidate in "${PYTHON:-}" python3.10 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10*/bin/python /opt/*/bin/python3.10; do
    [ -n "$candidate" ] && fits "$candidate" && { echo "$candidate"; return; }
  done
  if command -v uv >/dev/null; then
    uv python find 3.10 2>/dev/null && return
    uv python install -q 3.10 2>/dev/null && uv python find 3.10 && return
  fi
  return 1
}

python=$(find_python) || {
  echo "callsheet: no Python 3.10 found (dm-launchpad and dm-reverb have no wheels past" \
    "it); install one ('uv python install 3.10', 'pyenv install 3.10' or your system's" \
    "python3.10 with venv), or name it: make PYTHON=/path/to/python3.10" >&2
  exit 1
}
echo "callsheet: making .venv with $("$python" --version) (once, about a minute)"
rm -rf .venv
"$python" -m venv .venv
if command -v uv >/dev/null; then
  uv=uv
elif .venv/bin/python -m pip install -q --disable-pip-version-check uv; then
  uv=.venv/bin/uv
else
  uv=
fi
# The lock is complete, so nothing needs resolving. Bytecode is compiled here, for
# every process of a program would do it again where writing it is switched off.
if [ -n "$uv" ]; then
  VIRTUAL_ENV=$PWD/.venv "$uv" pip install -q --no-deps --compile-bytecode -r requirements.lock
  VIRTUAL_ENV=$PWD/.venv "$uv" pip install -q --no-deps --no-build-isolation -e .
else
  .venv/bin/python -m pip install -q --no-deps --compile -r requirements.lock
  .venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
fi
cp requirements.lock .venv/installed.lock
