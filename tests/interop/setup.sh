#!/bin/sh
# Makes the virtual environment that tests/interop.rs and benches/peers use: target/interop-venv.
set -eu
cd "$(dirname "$0")/../.."
python3 -m venv target/interop-venv
target/interop-venv/bin/pip install --quiet --requirement tests/interop/requirements.txt
echo "ready: cargo test --test interop -- --nocapture"
