#!/usr/bin/env python3
"""Whole-process benchmark: POKER-DVS recordings repeated to 50 million events through
`dvs-stream replay --speed max`, CPU time of all threads and peak memory.

    cargo build --release && python3 benches/whole_process.py [RECORDINGS_FOLDER]

The folder holds AEDAT 2.0 files (default ../shared/data/poker-dvs); without it, recordings are
made by `dvs-stream synth`. Prints nanoseconds of CPU an event, the median of five runs.
"""
import os, pathlib, resource, statistics, struct, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/dvs-stream"
EVENTS = 50_000_000


def events_of(path):
    data = path.read_bytes()
    at = 0
    while data[at : at + 1] == b"#":
        at = data.index(b"\n", at) + 1
    words = struct.unpack(f">{(len(data) - at) // 4}I", data[at : at + (len(data) - at) // 8 * 8])
    return list(zip(words[0::2], words[1::2]))


def make(folder, out):
    if not folder.is_dir():
        folder = pathlib.Path(tempfile.mkdtemp()) / "pips"
        subprocess.run([PROGRAM, "synth", "-q", "--to", "aedat2", "--out", folder], check=True)
    recordings = [events_of(path) for path in sorted(folder.glob("*/*.aedat"))]
    written, now_us = 0, 1000
    with open(out, "wb") as file:
        file.write(b"#!AER-DAT2.0\r\n")
        while written < EVENTS:
            for events in recordings:
                first_us = events[0][1]
                words = [w for a, t in events for w in (a, now_us + t - first_us)]
                file.write(struct.pack(f">{len(words)}I", *words))
                now_us += events[-1][1] - first_us + 57
                written += len(events)
    return written


def run(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    with open(os.devnull, "wb") as sink:
        process = subprocess.Popen([PROGRAM, *arguments], stdout=sink)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    del before
    wall_s = time.monotonic() - begun
    return usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss / 1024


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "../shared/data/poker-dvs")
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "poker-50m.aedat"
        n = make(folder, path)
        runs = [run(["replay", "-q", "--output", "jsonl", path]) for _ in range(5)]
    for cpu_s, wall_s, rss_mib in runs:
        print(f"{cpu_s / n * 1e9:6.1f} ns CPU an event, {n / wall_s * 1e-6:6.1f} Mev/s wall, {rss_mib:5.1f} MiB")
    print(f"median {statistics.median(cpu for cpu, _, _ in runs) / n * 1e9:.1f} ns of CPU an event")


if __name__ == "__main__":
    main()
