#!/bin/sh
# The CUDA 13.0 toolchain in a folder (default target/cuda-13.0), out of Python wheels: compiler,
# headers, and libraries to link against which hold names alone.
set -eu
dst=${1:-target/cuda-13.0}
mkdir -p "$(dirname "$dst")"
pip install -q --no-deps --no-compile --upgrade --target "$dst.pip" \
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
ln -sfn "$(realpath "$dst.pip")/nvidia/cu13" "$dst"
ln -sfn lib "$dst/lib64"
mkdir -p "$dst/lib/stubs"
ln -sf libcudart.so.13 "$dst/lib/libcudart.so"
cargo fetch --quiet --locked
src=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.*/src | tail -1)
test -d "$src"
# every name that cudarc knows; each returns 100, no device
stub() {
  awk '/^pub unsafe fn (cu|nvrtc)/{sub(/^pub unsafe fn /,"");sub(/[(<].*/,"");print "int "$0"(void){return 100;}"}' \
    "$src/$3/sys/mod.rs" | sort -u | cc -w -shared -fPIC -x c - -Wl,-soname,"$2" -o "$dst/lib/stubs/$2"
  ln -sf "$2" "$dst/lib/stubs/lib$1.so"
}
stub cuda libcuda.so.1 driver
stub nvrtc libnvrtc.so.13 nvrtc
stub cublas libcublas.so.13 cublas
stub cublasLt libcublasLt.so.13 cublaslt
stub curand libcurand.so.10 curand
