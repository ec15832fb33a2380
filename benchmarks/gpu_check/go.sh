#!/usr/bin/env bash
# On the GPU machine: installs what gather.sh has gathered, and runs a part of the check.
#
#     benchmarks/gpu_check/go.sh 1 --out OUT; benchmarks/gpu_check/go.sh 2 --out OUT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The wheels go where the interpreter's own packages are: a sandbox shows no other folder of sys.path. If that
# is read-only, a layer over it takes them.
site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if ! [ -w "$site" ]; then
    layer=$(mktemp -d)
    mkdir "$layer/upper" "$layer/work"
    mount -t overlay overlay -o "lowerdir=$site,upperdir=$layer/upper,workdir=$layer/work" "$site"
fi
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --upgrade .whl/*.whl
if ! command -v git >/dev/null; then
    for file in .whl/*.deb; do dpkg -x "$file" /; done
fi
exec python3 benchmarks/gpu.py "$@" --upstream .gpu
