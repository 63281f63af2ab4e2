"""Decoding AEDAT 4 beside dv-processing and the `aedat` crate: ratios on the same files in one run.

    tests/interop/setup.sh
    target/interop-venv/bin/python benches/peers/compare.py CLIP.aedat4 [OTHER.aedat4 ...]

CLIP is repeated by dv-processing to 20 million events in NONE, LZ4 and ZSTD; the others are read
as they are. Figures are million events a second of CPU time, the median of five alternating runs
after one to warm up. dv-processing is timed twice: handing out its batches untouched, and with
every field summed by NumPy; ratios are to the first, which favours it.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import dv_processing as dv
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "target" / "peers"
N_EVENTS = 20_000_000
N_RUNS = 8

# as in benches/decode.rs: a smaller file is read again and again
LEAST_EVENTS = 5_000_000


def build():
    command = ["cargo", "bench", "--bench", "decode", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    artifacts = [json.loads(line) for line in output.stdout.splitlines()]
    return next(
        artifact["executable"]
        for artifact in artifacts
        if artifact.get("executable") and artifact["target"]["name"] == "decode"
    )


def batches(path):
    reader = dv.io.MonoCameraRecording(str(path))
    while reader.isRunning():
        batch = reader.getNextEventBatch()
        if batch is None:
            return
        yield batch


def repeated(clip, compression):
    """The clip, again and again, each pass later by its duration."""
    path = FOLDER / f"{pathlib.Path(clip).stem}-{compression.name}-{N_EVENTS}.aedat4"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    resolution = dv.io.MonoCameraRecording(clip).getEventResolution()
    events = numpy.concatenate([batch.numpy() for batch in batches(clip)])
    span_us = int(events["timestamp"][-1] - events["timestamp"][0]) + 1
    config = dv.io.MonoCameraWriter.EventOnlyConfig("bench", resolution, compression)
    writer = dv.io.MonoCameraWriter(str(path), config)
    for k in range(-(-N_EVENTS // len(events))):
        store = dv.EventStore()
        for t, x, y, p in events.tolist():
            store.push_back(t + k * span_us, x, y, bool(p))
        writer.writeEvents(store)
    return path


def with_dv(path, touches):
    begun = time.process_time_ns()
    n_events = 0
    while n_events < LEAST_EVENTS:
        for batch in batches(path):
            n_events += batch.size()
            if touches:
                events = batch.numpy()
                for field in ("timestamp", "x", "y", "polarity"):
                    events[field].sum()
    return n_events, time.process_time_ns() - begun


def with_rust(executable, path, reader):
    command = [executable, "--peers", str(path), reader]
    line = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return line["events"], line["cpu_ns"]


def compare(executable, path):
    readers = {
        "ours": lambda: with_rust(executable, path, "ours"),
        "crate": lambda: with_rust(executable, path, "crate"),
        "dv": lambda: with_dv(path, False),
        "dv touched": lambda: with_dv(path, True),
    }
    rates = {name: [] for name in readers}
    counts = set()
    for run in range(N_RUNS + 1):
        # What ran before is felt, so each begins in its turn.
        first = run % len(readers)
        for name in [*readers][first:] + [*readers][:first]:
            n_events, cpu_ns = readers[name]()
            counts.add(n_events)
            if run > 0:
                rates[name].append(n_events * 1e3 / cpu_ns)
    assert len(counts) == 1, f"the readers disagree on the number of events: {counts}"
    rate = {name: statistics.median(values) for name, values in rates.items()}
    texts = [f"{name} {value:.0f}" for name, value in rate.items()]
    ratios = f"ours/crate {rate['ours'] / rate['crate']:.2f}, ours/dv {rate['ours'] / rate['dv']:.2f}"
    print(f"{pathlib.Path(path).name}: {', '.join(texts)} Mev/s; {ratios}", flush=True)


if __name__ == "__main__":
    clip, *others = sys.argv[1:]
    executable = build()
    types = dv.CompressionType
    files = [repeated(clip, c) for c in (types.NONE, types.LZ4, types.ZSTD)]
    for path in [*files, *others]:
        compare(executable, path)
