"""Reads AEDAT 4 files with dv-processing and with faery; prints a line of JSON per reader and file.

Each line holds the sensor size, the number of events and a SHA-256 of every field, as
little-endian numbers one after another: t 64 bits, x and y 16 bits, p 8 bits.
"""

import hashlib
import json
import sys

import dv_processing
import faery
import numpy


def with_dv_processing(path):
    reader = dv_processing.io.MonoCameraRecording(path)
    batches = []
    while reader.isRunning():
        batch = reader.getNextEventBatch()
        if batch is None:
            break
        batches.append(batch.numpy())
    events = numpy.concatenate(batches) if batches else numpy.zeros(0, NO_EVENTS)
    return reader.getEventResolution(), (
        events["timestamp"], events["x"], events["y"], events["polarity"],
    )


def with_faery(path):
    stream = faery.events_stream_from_file(path)
    batches = list(stream)
    fields = ("t", "x", "y", "on")
    return stream.dimensions(), tuple(
        numpy.concatenate([batch[field] for batch in batches]) if batches else numpy.zeros(0)
        for field in fields
    )


NO_EVENTS = [("timestamp", "i8"), ("x", "i2"), ("y", "i2"), ("polarity", "i1")]
READERS = {"dv-processing": with_dv_processing, "faery": with_faery}
TYPES = ("<u8", "<u2", "<u2", "<u1")

for path in sys.argv[1:]:
    for name, read in READERS.items():
        (width, height), fields = read(path)
        digests = [
            hashlib.sha256(field.astype(kind).tobytes()).hexdigest()
            for field, kind in zip(fields, TYPES)
        ]
        line = {"reader": name, "file": path, "sensor": f"{width}x{height}"}
        line |= {"events": len(fields[0]), "digests": digests}
        print(json.dumps(line))
