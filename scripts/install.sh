#!/bin/sh
# install.sh FOLDER [PYTHON]: makes a virtual environment with the versions that
# requirements.lock has for this Python, and this checkout, editable.
set -eu
cd "$(dirname "$0")/.."

folder=$PWD/$1
python=$(sh scripts/find_python.sh "${2:-}")
echo "callsheet: making $1 with $("$python" --version) (once, about a minute)"
rm -rf "$folder"
"$python" -m venv "$folder"
if command -v uv >/dev/null; then
  uv=uv
elif "$folder/bin/python" -m pip install -q --disable-pip-version-check uv; then
  uv=$folder/bin/uv
else
  uv=
fi
# The lock is complete, so nothing needs resolving. Bytecode is compiled here, for
# every process of a program would do it again where writing it is switched off.
if [ -n "$uv" ]; then
  export VIRTUAL_ENV="$folder"
  # Mirrors of an index may disagree for a while on what is new: once more, afresh.
  "$uv" pip install -q --no-deps --compile-bytecode -r requirements.lock ||
    "$uv" pip install -q --no-deps --compile-bytecode --refresh -r requirements.lock
  "$uv" pip install -q --no-deps --no-build-isolation -e .
else
  "$folder/bin/python" -m pip install -q --no-deps --compile -r requirements.lock
  "$folder/bin/python" -m pip install -q --no-deps --no-build-isolation -e .
fi
cp requirements.lock "$folder/installed.lock"
