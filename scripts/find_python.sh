#!/bin/sh
# Prints the path of a Python: find_python.sh [PATH | COMMAND | VERSION].
# Unless told, it takes 3.10, for which every package has wheels (dm-launchpad and the
# dm-reverb beside it end there), else the newest that was seen to work.
set -eu

is_version() { case $1 in *[!0-9.]* | '') false ;; *) true ;; esac; }

# What a command is, if it is a Python of this version, or of any from 3.10 on.
python_of() {
  "$1" -c '
import sys
version = "%d.%d" % sys.version_info[:2]
sys.exit(sys.version_info < (3, 10) or sys.argv[1] not in ("", version))
' "$2" 2>/dev/null && "$1" -c 'import sys; print(sys.executable)'
}

find_version() {
  for candidate in "python$1" python3 python \
    "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python /opt/*/bin/"python$1"; do
    python_of "$candidate" "$1" && return
  done
  command -v uv >/dev/null && uv python find -q --system "$1" 2>/dev/null
}

wanted=${1:-}
if [ -z "$wanted" ]; then
  for version in 3.10 3.13 3.12 3.11; do
    find_version "$version" && exit
  done
  wanted='3.10 to 3.13'
elif is_version "$wanted"; then
  find_version "$wanted" && exit
else
  python_of "$wanted" '' && exit
  find_version "${wanted#python}" && exit
fi
echo "callsheet: no Python ${wanted#python} found; install one ('uv python install 3.10', 'pyenv" \
  "install 3.10' or your system's python3.10 with venv), or name one from 3.10 on: make" \
  "PYTHON=/path/to/python" >&2
exit 1
