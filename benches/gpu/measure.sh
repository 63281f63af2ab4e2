#!/usr/bin/env bash
# Everything about GPUs that needs one, in one go.
#
#   benches/gpu/measure.sh build           where Rust is: programs and tests into target/gpu
#   benches/gpu/measure.sh run [SECONDS]   where a GPU is, from the root of the same sources with
#                                          that folder: equality, memory checks, speeds
#   benches/gpu/measure.sh [SECONDS]       both
#   benches/gpu/measure.sh trial           both with the CPU in a GPU's place, with less of everything:
#                                          whether this script works
#
# `run` needs neither Rust nor a network. Each check runs to its end; what failed, and what could not be
# done, is listed last. Exit codes: 0 all that was done is well, 1 a check failed, 3 there is no device.
# What it prints belongs in BENCHMARKS.md. Each tick row takes SECONDS (60).
set -euo pipefail
cd "$(dirname "$0")/../.."
into=target/gpu
device=cuda
feature=cuda
speed=(cuda)

build() {
    mkdir -p "$into"
    local folder=${CARGO_TARGET_DIR:-target}
    if [ "$feature" = cuda ]; then
        if ! [ -x "${CUDA_HOME:-target/cuda-13.0}/bin/nvcc" ]; then
            tests/cuda/setup.sh target/cuda-13.0
            CUDA_HOME=$PWD/target/cuda-13.0
        fi
        CUDA_HOME=$(realpath "${CUDA_HOME:-target/cuda-13.0}")
        export CUDA_HOME CUDA_COMPUTE_CAP=80 PATH="$PWD/tests/cuda:$CUDA_HOME/bin:$PATH"
        tests/cuda/ptx.sh --check
        # a folder of its own: what stands in for nvcc elsewhere must not be mixed in
        folder=target/cuda-build
    fi
    export CARGO_TARGET_DIR=$folder
    cargo build --locked --release --features "$feature"
    cp "$folder/release/dvs-stream" "$into/"
    cargo test --locked --release --features "$feature" --no-run --message-format json \
        --test network --test kernels --test stream --test learning --test training --bench gpu |
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
    local name found
    for name in libcuda.so.1 libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libcudart.so.13; do
        found=$(find /usr /opt -name "$name" -not -path '*/stubs/*' 2> /dev/null | head -1 || true)
        if [ "$found" ]; then
            export LD_LIBRARY_PATH=${found%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        fi
    done
    # compute-sanitizer, where the toolkit is
    export PATH=$PATH:/usr/local/cuda/bin
}

heading() { printf '\n== %s\n' "$*"; }

failed=()
missed=()

# Runs a check to its end, whatever comes of it.
check() {
    local name=$1
    shift
    if "$@"; then
        echo "ok: $name"
    else
        echo "FAILED: $name"
        failed+=("$name")
    fi
}

miss() {
    echo "not measured: $*"
    missed+=("$*")
}

# Some tests of a program, of which there must be one at least; what they skip is missed.
tests() {
    local code=0 why
    "$@" > "$work/tests" 2>&1 || code=$?
    cat "$work/tests"
    while read -r why; do
        missed+=("${why#*SKIPPED: }")
    done < <(grep SKIPPED: "$work/tests")
    [ "$code" = 0 ] && grep -q '^test result: ok\. [1-9]' "$work/tests"
}

# A command prints the same on the CPU and on the device.
same() {
    "$program" "$@" --device cpu > "$work/cpu" &&
        "$program" "$@" --device "$device" > "$work/device" &&
        [ -s "$work/cpu" ] && cmp "$work/cpu" "$work/device"
}

# A training writes the same model.
trains() {
    local at
    local recipe=(--epochs 5 --recipe best --split first:15)
    for at in cpu "$device"; do
        "$program" train -q "${recipe[@]}" --device "$at" --out "$work/M-$at.safetensors" \
            "$work/pips" > /dev/null || return
    done
    cmp "$work/M-cpu.safetensors" "$work/M-$device.safetensors"
}

nameless() { sed 's/"stream":"[^"]*"//' "$1"; }

# Several streams at once get what `replay` on the CPU prints, but for their names.
serves() {
    local server client clients=() name code=0
    : > "$work/listening"
    "$program" serve -q --device "$device" --unix "$work/socket" > "$work/listening" &
    server=$!
    until grep -q listening "$work/listening"; do
        kill -0 "$server" || return
        sleep 0.1
    done
    for name in one two three four; do
        "$program" send -q --print --speed max --stream "$name" fixtures/deck.aedat4 \
            "unix://$work/socket" > "$work/$name" &
        clients+=($!)
    done
    for client in "${clients[@]}"; do
        wait "$client" || code=1
    done
    kill "$server"
    wait "$server" || code=1
    "$program" replay --output jsonl fixtures/deck.aedat4 > "$work/replayed" || code=1
    for name in one two three four; do
        nameless "$work/$name" | cmp - <(nameless "$work/replayed") || code=1
    done
    return "$code"
}

# A device that is not there ends with exit code 3 and a line that names it.
refuses() {
    local code=0
    "$program" replay --device cuda:99 fixtures/deck.aedat4 > "$work/out" 2> "$work/why" || code=$?
    cat "$work/why"
    [ "$code" = 3 ] && ! [ -s "$work/out" ] && [ "$(grep -c cuda:99 "$work/why")" = 1 ]
}

equality() {
    heading "equality with the CPU, bit for bit"
    check "rollouts of random networks" tests "$into/test-network" kernel::
    check "recordings, and many streams" tests "$into/test-kernels"
    check "recordings that Norse read" tests "$into/test-stream" kernels
    check "gradients of random networks" tests "$into/test-learning" kernels::
    check "trainings" tests "$into/test-training" kernels
    "$program" synth -q --out "$work/pips" --per-class 20 --seed 1
    check "replay" same replay --output jsonl fixtures/deck.aedat4
    check "eval" same eval --output jsonl --each --split first:15 "$work/pips"
    check "train" trains
    check "serve" serves
    check "a device that is not there" refuses
}

sanity() {
    local tool name
    local -A only=(
        [network]=kernel::equals_the_walk_in_every_form
        [kernels]=many_streams::step_as_by_the_walk
        [learning]=kernels::learn_as_the_cpu_does_in_every_form
    )
    for tool in memcheck racecheck initcheck; do
        heading "compute-sanitizer $tool"
        if ! command -v compute-sanitizer > /dev/null; then
            miss "$tool: there is no compute-sanitizer"
            continue
        fi
        for name in network kernels learning; do
            check "$tool, $name" tests compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$into/test-$name" "${only[$name]}"
        done
    done
}

speeds() {
    local python=python3 ours
    heading "speed on the device"
    check "speed on the device" "$into/bench-gpu" "${speed[@]}"
    heading "speed on this CPU, beside"
    check "speed on this CPU" "$into/bench-gpu" cpu "${cpu[@]}"
    [ -x target/norse/bin/python ] && python=target/norse/bin/python
    heading "PyTorch on the same device: a step, and what it must move alone"
    if ! "$python" -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
        miss "PyTorch: a Python is needed that has it, with CUDA (benches/peers/torch_step.py)"
        return
    fi
    check "a step by PyTorch" "$python" benches/peers/torch_step.py
    heading "training beside Norse, both on the GPU, then ours on the CPU"
    if ! "$python" -c 'import norse' 2> /dev/null; then
        miss "Norse: that Python needs it too (benches/peers/norse_epoch.py)"
        return
    fi
    for ours in "$device" cpu; do
        check "epochs on $ours beside Norse" env DVS_STREAM="$program" "$python" \
            benches/peers/norse_epoch.py "${DVS_SHARED:-../shared}/data/poker-dvs" cuda "$ours"
    done
}

# Whether there is a device at all.
ready() {
    if ldd "$program" | grep 'not found'; then
        echo "not measured: the libraries above are missing (README.md, On a GPU)" >&2
        return 3
    fi
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
    "$program" info --devices --output text | tee "$work/devices"
    if ! grep -q '^cuda:0' "$work/devices"; then
        echo "not measured: no device" >&2
        return 3
    fi
}

run() {
    program=$into/dvs-stream
    work=$(mktemp -d)
    trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$work"' EXIT
    heading machine
    if [ "$device" = cuda ]; then
        libraries
        ready
    fi
    equality
    sanity
    speeds
    heading "in all"
    if [ ${#missed[@]} -gt 0 ]; then
        printf 'not measured: %s\n' "${missed[@]}" | sort -u
    fi
    if [ ${#failed[@]} -gt 0 ]; then
        printf 'FAILED: %s\n' "${failed[@]}"
        return 1
    fi
    echo "every check that was made is well"
}

cpu=(5)
case ${1-} in
    build) build ;;
    run)
        speed+=("${2:-60}")
        run
        ;;
    trial)
        into=target/gpu-trial
        device=cpu
        feature=kernel-host
        speed=(kernels 1 20)
        cpu=(1 20)
        build
        run
        ;;
    *)
        speed+=("${1:-60}")
        build
        run
        ;;
esac
