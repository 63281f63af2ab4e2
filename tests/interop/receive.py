"""Receives events with dv-processing or faery; prints a line of JSON as read.py does.

    receive.py dv PORT              dials a DV server, until it closes the connection
    receive.py FORMAT PORT COUNT    listens for faery's datagrams, until COUNT events have come or
                                    none do for a while; says "ready" first
"""

import hashlib
import json
import os
import sys
import threading
import time

import numpy

SILENCE_S = 5


def with_dv_processing(port):
    import dv_processing

    reader = dv_processing.io.NetworkReader("127.0.0.1", port)
    batches = []
    while reader.isRunning():
        batch = reader.getNextEventBatch()
        if batch is None:
            time.sleep(0.0005)
        else:
            batches.append(batch.numpy())
    while (batch := reader.getNextEventBatch()) is not None:
        batches.append(batch.numpy())
    return (concatenated(batches, name) for name in ("timestamp", "x", "y", "polarity"))


def with_faery(form, port, count):
    import faery

    stream = faery.events_stream_from_udp(
        dimensions=(346, 260), address=("127.0.0.1", port), format=form
    )
    batches, last = [], [time.monotonic()]

    def give_up():
        while time.monotonic() - last[0] < SILENCE_S:
            time.sleep(0.1)
        os._exit(1)

    print("ready", flush=True)
    threading.Thread(target=give_up, daemon=True).start()
    for batch in stream:
        last[0] = time.monotonic()
        batches.append(batch)
        if sum(map(len, batches)) >= count:
            break
    return (concatenated(batches, name) for name in ("t", "x", "y", "on"))


def concatenated(batches, name):
    return numpy.concatenate([batch[name] for batch in batches])


if sys.argv[1] == "dv":
    fields = with_dv_processing(int(sys.argv[2]))
else:
    fields = with_faery(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
TYPES = ("<u8", "<u2", "<u2", "<u1")
digests = [hashlib.sha256(f.astype(k).tobytes()).hexdigest() for f, k in zip(fields, TYPES)]
print(json.dumps({"digests": digests}), flush=True)
os._exit(0)
