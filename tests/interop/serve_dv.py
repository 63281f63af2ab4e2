"""Serves the events of an AEDAT 4 recording with dv-processing's NetworkWriter.

    serve_dv.py FILE [PATH]    on a free TCP port, or at a UNIX socket

Prints the URL to dial, waits for a client, and sends; last comes the last event once more, a second
later, which tells a receiver that all others have come. It closes when its standard input ends: a
writer whose queue is empty may not have sent all of it.
"""

import os
import socket
import sys
import time

import dv_processing


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


recording = dv_processing.io.MonoCameraRecording(sys.argv[1])
size = recording.getEventResolution()
stream = dv_processing.io.Stream.EventStream(0, "events", "recording", size)
if len(sys.argv) > 2:
    writer = dv_processing.io.NetworkWriter(sys.argv[2], stream)
    print(f"dv+unix://{sys.argv[2]}", flush=True)
else:
    port = free_port()
    writer = dv_processing.io.NetworkWriter("127.0.0.1", port, stream)
    print(f"dv://127.0.0.1:{port}", flush=True)

# What is written before somebody listens goes nowhere.
patience = time.monotonic() + 60
while writer.getClientCount() == 0:
    if time.monotonic() > patience:
        sys.exit("nobody dials")
    time.sleep(0.001)
while recording.isRunning():
    events = recording.getNextEventBatch()
    if events is not None:
        writer.writeEvents(events)
        last = events.back()
again = dv_processing.EventStore()
again.push_back(last.timestamp() + 1_000_000, last.x(), last.y(), last.polarity())
writer.writeEvents(again)
sys.stdin.read()
# In 2.0.4 a writer whose client is still there may wait for ever when it is to go.
os._exit(0)
