#!/bin/sh
# Compiles each kernel to the PTX beside it; with --check compares instead, in a folder of its own.
# Needs nvcc 13.0.88: in $CUDA_HOME, or as tests/cuda/setup.sh installs it.
set -eu
cd "$(dirname "$0")/../.."
nvcc=${CUDA_HOME:-target/cuda-13.0}/bin/nvcc
ptxas=${nvcc%nvcc}ptxas
into=src/nn/op
[ "${1-}" = --check ] && into=$(mktemp -d) && trap 'rm -r "$into"' EXIT
for kernel in src/nn/op/*.cu; do
  ptx=$into/$(basename "$kernel" .cu).ptx
  # compute_80 runs on every GPU since; a fused multiply and add would round otherwise than the CPU
  "$nvcc" --ptx -arch=compute_80 --fmad=false -Werror all-warnings "$kernel" -o "$ptx"
  # nothing in it is newer than PTX 7.0 (CUDA 11.0), as ptxas confirms; an older driver may do
  sed -i 's/^\.version .*/.version 7.0/' "$ptx"
  for gpu in sm_80 sm_90; do "$ptxas" -arch=$gpu "$ptx" -o /dev/null; done
  [ "$into" = src/nn/op ] || diff -q "$ptx" "${kernel%.cu}.ptx"
done
