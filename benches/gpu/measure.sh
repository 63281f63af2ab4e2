#!/usr/bin/env bash
# Everything about GPUs that needs one, in one go.
#
#   benches/gpu/measure.sh build           where Rust is: programs and tests into target/gpu
#   benches/gpu/measure.sh run [SECONDS]   where a GPU is, from the root of the same sources with
#                                          that folder: equality, memory checks, speeds
#   benches/gpu/measure.sh [SECONDS]       both
#
# `run` needs neither Rust nor a network. What it prints belongs in BENCHMARKS.md. Each tick row
# takes SECONDS (60).
set -euo pipefail
cd "$(dirname "$0")/../.."
into=target/gpu

build() {
    if ! [ -x "${CUDA_HOME:-target/cuda-13.0}/bin/nvcc" ]; then
        tests/cuda/setup.sh target/cuda-13.0
        CUDA_HOME=$PWD/target/cuda-13.0
    fi
    CUDA_HOME=$(realpath "${CUDA_HOME:-target/cuda-13.0}")
    export CUDA_HOME CUDA_COMPUTE_CAP=80 PATH="$PWD/tests/cuda:$CUDA_HOME/bin:$PATH"
    tests/cuda/ptx.sh --check
    # a folder of its own: what stands in for nvcc elsewhere must not be mixed in
    export CARGO_TARGET_DIR=target/cuda-build
    cargo build --locked --release --features cuda
    mkdir -p "$into"
    cp "$CARGO_TARGET_DIR/release/dvs-stream" "$into/"
    cargo test --locked --release --features cuda --no-run --message-format json \
        --test network --test kernels --test learning --test cli --bench gpu --bench step |
        python3 -c '
import json, shutil, sys
for line in sys.stdin:
    told = json.loads(line)
    target = told.get("target", {})
    kind = target.get("kind", [""])[0]
    if told.get("executable") and kind in ("test", "bench"):
        shutil.copy(told["executable"], sys.argv[1] + "/" + kind + "-" + target["name"])
' "$into"
    ls "$into"
}

# The driver's and the toolkit's libraries, wherever they stand; never the stubs.
libraries() {
    local path= name found
    for name in libcuda.so.1 libcudart.so.13 libcublas.so.13 libcurand.so.10; do
        found=$(find /usr /opt -name "$name" -not -path '*/stubs/*' 2> /dev/null | head -1 || true)
        path=$path:${found%/*}
    done
    export LD_LIBRARY_PATH=${path#:}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

heading() { printf '\n== %s\n' "$*"; }

run() {
    local seconds=$1 tool
    libraries
    heading machine
    if ldd "$into/dvs-stream" | grep 'not found'; then
        echo "not measured: the libraries above are missing (README.md, On a GPU)" >&2
        return 3
    fi
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
    "$into/dvs-stream" info --devices --output text
    if ! "$into/dvs-stream" info --devices --output text 2> /dev/null | grep -q '^cuda:0'; then
        echo "not measured: no device" >&2
        return 3
    fi
    heading "equality with the CPU, bit for bit"
    "$into/test-network" kernel
    "$into/test-kernels"
    "$into/test-learning" kernels
    "$into/dvs-stream" replay --output jsonl fixtures/deck.aedat4 > "$into/cpu.jsonl"
    "$into/dvs-stream" replay --output jsonl --device cuda fixtures/deck.aedat4 > "$into/gpu.jsonl"
    cmp "$into/cpu.jsonl" "$into/gpu.jsonl" && echo "replay prints the same bytes"
    rm -rf "$into/pips"
    "$into/dvs-stream" synth -q --out "$into/pips" --per-class 20 --seed 1
    for device in cpu cuda; do
        "$into/dvs-stream" train -q --device "$device" --epochs 5 --recipe best --split first:15 \
            --out "$into/$device.safetensors" "$into/pips" > /dev/null
    done
    cmp "$into/cpu.safetensors" "$into/cuda.safetensors" && echo "train writes the same bytes"
    for tool in memcheck racecheck initcheck; do
        heading "compute-sanitizer $tool"
        if command -v compute-sanitizer > /dev/null; then
            compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$into/test-network" kernel::equals_the_walk_in_every_form
            compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$into/test-kernels" many_streams::step_as_by_the_walk
            compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$into/test-learning" kernels::learn_as_the_cpu_does_in_every_form
        else
            echo "not measured: there is no compute-sanitizer"
        fi
    done
    heading "speed on the GPU"
    "$into/bench-gpu" cuda "$seconds"
    heading "speed on this CPU, beside"
    "$into/bench-gpu" cpu 5
    heading "training beside Norse, both on the GPU, then ours on the CPU"
    local python=python3
    [ -x target/norse/bin/python ] && python=target/norse/bin/python
    if "$python" -c 'import norse, torch; assert torch.cuda.is_available()' 2> /dev/null; then
        for ours in cuda cpu; do
            DVS_STREAM=$into/dvs-stream "$python" benches/peers/norse_epoch.py \
                "${DVS_SHARED:-../shared}/data/poker-dvs" cuda "$ours"
        done
    else
        echo "not measured: needs PyTorch with CUDA, and Norse (benches/peers/norse_epoch.py)"
    fi
}

case ${1-} in
    build) build ;;
    run) run "${2:-60}" ;;
    *)
        build
        run "${1:-60}"
        ;;
esac
