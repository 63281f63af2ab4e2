#!/usr/bin/env python3
"""A training epoch of the tutorial's network beside Norse, on the same recordings and core.

    python3 -m venv target/norse && target/norse/bin/pip install torch==2.3.1 'numpy<2' norse==1.1.0
    cargo build --release && taskset -c 0 target/norse/bin/python benches/peers/norse_epoch.py [POKER_DVS [NORSE [OURS]]]

The folder holds cl, di, he, sp with AEDAT 2.0 files (default ../shared/data/poker-dvs); the first 12
of each class are trained on, batch 32. Frames are made beforehand. Prints CPU milliseconds an epoch:
Norse's, in eager mode on one thread, and ours, from the difference of two whole processes on one
thread, five alternating rounds. NORSE and OURS are cpu, the default, or cuda; of what runs on a GPU
wall time is taken. DVS_STREAM names the program (default target/release/dvs-stream).
"""
import os, pathlib, re, resource, statistics, struct, subprocess, sys, tempfile, time

import numpy as np
import torch
from norse.torch import LICell, LIFParameters, LIFRecurrentCell, LIParameters

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = pathlib.Path(os.environ.get("DVS_STREAM", ROOT / "target/release/dvs-stream"))
SIDE, HIDDEN, BATCH = 35, 100, 32
EPOCHS = (20, 220)


def natural(path):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def frames_of(path):
    data = path.read_bytes()
    at = 0
    while data[at : at + 1] == b"#":
        at = data.index(b"\n", at) + 1
    words = np.frombuffer(data[at : at + (len(data) - at) // 8 * 8], ">u4").reshape(-1, 2)
    address, t = words[:, 0].astype(np.int64), words[:, 1].astype(np.int64)
    x, y, on = (address >> 1) & 0x7F, (address >> 8) & 0x7F, 1 - (address & 1)
    window = (t - t[0]) // 1000
    n = max(1, int((t[-1] - t[0]) // 1000))
    keep = window < n
    frames = np.zeros((n, 2, SIDE, SIDE), np.float32)
    np.add.at(frames, (window[keep], on[keep], y[keep], x[keep]), 1)
    return torch.from_numpy(frames)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = LIFRecurrentCell(
            2 * SIDE * SIDE, HIDDEN, p=LIFParameters(alpha=100, v_th=torch.as_tensor(0.3)), dt=1e-3
        )
        self.fc_out = torch.nn.Linear(HIDDEN, 4, bias=False)
        self.out = LICell(p=LIParameters(tau_syn_inv=200, tau_mem_inv=100), dt=1e-3)

    def forward(self, x):
        s1 = so = None
        voltages = []
        for frame in x:
            z, s1 = self.l1(frame.flatten(1), s1)
            v, so = self.out(self.fc_out(z), so)
            voltages.append(v)
        return torch.stack(voltages)


def now(device):
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def norse_epochs(samples, n, device):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = Net().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
    times = []
    for _ in range(n):
        begun = now(device)
        order = torch.randperm(len(samples)).tolist()
        for k in range(0, len(order), BATCH):
            chosen = [samples[i] for i in order[k : k + BATCH]]
            x = torch.nn.utils.rnn.pad_sequence([frames for frames, _ in chosen]).to(device)
            target = torch.tensor([label for _, label in chosen], device=device)
            optimizer.zero_grad()
            log_p = torch.nn.functional.log_softmax(net(x).max(0).values, dim=1)
            torch.nn.functional.nll_loss(log_p, target).backward()
            optimizer.step()
        times.append(1000 * (now(device) - begun))
    return times


def seconds(arguments, device):
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if device != "cpu":
        return time.perf_counter() - begun
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def our_epoch(data, out, device):
    few, many = EPOCHS
    common = ["train", data, "-q", "--partial", "drop", "--threads", "1", "--out", out]
    common += ["--device", device, "--epochs"]
    of = [seconds([*common, str(epochs)], device) for epochs in EPOCHS]
    return 1000 * (of[1] - of[0]) / (many - few)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "../shared/data/poker-dvs"
    device, our_device = [*sys.argv[2:4], "cpu", "cpu"][:2]
    with tempfile.TemporaryDirectory() as temporary:
        data = pathlib.Path(temporary) / "data"
        samples = []
        for label, name in enumerate(["cl", "di", "he", "sp"]):
            (data / name).mkdir(parents=True)
            for path in sorted((folder / name).glob("*.aedat"), key=natural)[:12]:
                (data / name / path.name).symlink_to(path.resolve())
                samples.append((frames_of(path), label))
        norse_epochs(samples, 3, device)
        norse, ours = [], []
        for _ in range(5):
            norse += norse_epochs(samples, 10, device)
            ours.append(our_epoch(str(data), str(pathlib.Path(temporary) / "M.safetensors"), our_device))
        a, b = statistics.median(norse), statistics.median(ours)
        print(f"Norse  {a:6.1f} ms an epoch on {device} (least {min(norse):.1f})")
        print(f"ours   {b:6.2f} ms an epoch on {our_device} (least {min(ours):.2f})")
        print(f"ratio  {a / b:.1f} of medians, {min(norse) / min(ours):.1f} of the least")


if __name__ == "__main__":
    main()
