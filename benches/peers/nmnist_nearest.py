#!/usr/bin/env python3
"""Nearest neighbour on event-count images of N-MNIST, the baseline beside a trained network.

    python3 benches/peers/nmnist_nearest.py [FOLDER] [SPLIT.csv]

The folder holds N-MNIST .bs2 files and a labels.txt (number, class; default
../shared/data/nmnist-small). The first 800 recordings are known, the others are asked. Writes the
same split as a table for `dvs-stream train FOLDER --folds SPLIT.csv:split`. Needs numpy.
"""
import pathlib, sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KNOWN = 800


def image(path):
    data = np.frombuffer(path.read_bytes(), np.uint8)
    events = data[: len(data) // 5 * 5].reshape(-1, 5)
    counts = np.zeros((2, 34, 34), np.float32)
    x, y, p = events[:, 0], events[:, 1], events[:, 2] >> 7
    inside = (x < 34) & (y < 34)
    np.add.at(counts, (p[inside], y[inside], x[inside]), 1)
    return counts.ravel()


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "../shared/data/nmnist-small"
    lines = (folder / "labels.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    numbers = np.array([int(row[0]) for row in rows])
    labels = np.array([int(row[1]) for row in rows])
    images = np.stack([image(folder / f"{n}.bs2") for n in numbers])
    known = numbers <= KNOWN
    if len(sys.argv) > 2:
        table = [f"{n}.bs2,{'train' if n <= KNOWN else 'test'}" for n in numbers]
        pathlib.Path(sys.argv[2]).write_text("\n".join(["file,split", *table]) + "\n")
    for name, scaled in [
        ("euclidean distance", images),
        ("cosine distance", images / np.linalg.norm(images, axis=1, keepdims=True)),
    ]:
        a, b = scaled[known], scaled[~known]
        distance = (b**2).sum(1)[:, None] - 2 * b @ a.T + (a**2).sum(1)[None]
        right = (labels[known][distance.argmin(1)] == labels[~known]).mean()
        print(f"nearest neighbour, {name}: {100 * right:.1f} % of {(~known).sum()}")


if __name__ == "__main__":
    main()
