#!/usr/bin/env python3
"""One step of 2450 → 100 → 4 by PyTorch, upload and download included: what `--bench gpu` does for n
streams with 100 active inputs each, in every way that PyTorch has for it, and by Norse where it is.

    python3 benches/peers/torch_step.py [--device cpu] [--calls N]

Needs torch; norse_epoch.py says how it and Norse are installed. Inputs come up as dense frames, or as
addresses with counts (4 bytes each) that are scattered into a dense frame or gather rows of weights;
each eagerly, compiled by torch.compile, and captured in a CUDA graph. Prints microseconds of wall time
a step, median and least, and last what moving the bytes of 10,000 streams takes by itself.
"""
import argparse, statistics, time

import torch

INPUTS, HIDDEN, CLASSES, ACTIVE = 2450, 100, 4, 100
STREAMS = (1, 100, 1000, 10_000)
SPANS = INPUTS // ACTIVE * torch.arange(ACTIVE)
WARM = 20


class Net:
    """Weights, and the state of n streams, which steps change in place."""

    def __init__(self, n, device):
        random = torch.Generator().manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=random) * (2 / HIDDEN) ** 0.5
        self.input, self.recurrent, self.output = (
            normal(*shape).to(device)
            for shape in [(INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)]
        )
        self.recurrent.fill_diagonal_(0)
        zeros = lambda width: torch.zeros(n, width, device=device)
        self.z, self.v, self.i = zeros(HIDDEN), zeros(HIDDEN), zeros(HIDDEN)
        self.vo, self.io = zeros(CLASSES), zeros(CLASSES)

    def step(self, current):
        """Norse's equations: LIFRecurrentCell, Linear without bias, LICell; dt 1 ms."""
        self.i.add_(current).addmm_(self.z, self.recurrent)
        self.v.add_(self.i - self.v, alpha=0.1)
        self.i.sub_(self.i, alpha=0.1)
        self.z.copy_(self.v - 0.3 > 0)
        self.v.mul_(1 - self.z)
        self.io.addmm_(self.z, self.output)
        self.vo.add_(self.io - self.vo, alpha=0.1)
        self.io.sub_(self.io, alpha=0.2)
        return self.vo


def packed(n):
    """Of each stream one active address in each span, with its count above it."""
    random = torch.Generator().manual_seed(1)
    address = SPANS + torch.randint(INPUTS // ACTIVE, (n, ACTIVE), generator=random)
    count = 1 + (torch.rand(n, ACTIVE, generator=random) < 0.25).long()
    return (address | count << 16).int()


def unpacked(x):
    return x & 0xFFFF, (x >> 16).float()


def scattered(net, x):
    address, count = unpacked(x)
    frame = torch.zeros(len(x), INPUTS, device=x.device)
    return net.step(frame.scatter_add_(1, address.long(), count) @ net.input)


def gathered(net, x):
    address, count = unpacked(x)
    bag = torch.nn.functional.embedding_bag
    return net.step(bag(address, net.input, per_sample_weights=count, mode="sum"))


def dense(net, x):
    return net.step(x @ net.input)


def frame_of(x):
    address, count = unpacked(x)
    return torch.zeros(len(x), INPUTS).scatter_add_(1, address.long(), count)


FORMS = {dense: frame_of, scattered: lambda x: x, gathered: lambda x: x}


class Norse:
    """The same network out of Norse's own cells."""

    def __init__(self, n, device):
        from norse_epoch import Net as Cells

        self.net, self.states = Cells().to(device), (None, None)

    def step(self, frame):
        hidden, readout = self.states
        z, hidden = self.net.l1(frame, hidden)
        v, readout = self.net.out(self.net.fc_out(z), readout)
        self.states = hidden, readout
        return v


class Call:
    """Upload, step and download between buffers that stay where they are."""

    def __init__(self, step, x, n, device):
        pin = (lambda t: t.pin_memory()) if device == "cuda" else (lambda t: t)
        self.step, self.device = step, device
        self.up, self.there = pin(x), x.clone().to(device)
        self.down = pin(torch.zeros(n, CLASSES))

    def run(self):
        self.there.copy_(self.up, non_blocking=True)
        self.down.copy_(self.step(self.there), non_blocking=True)

    def captured(self):
        """The same in one launch."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.run()
        return graph.replay


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def micros(run, device, calls):
    times = []
    for _ in range(WARM + calls):
        begun = time.perf_counter()
        run()
        wait(device)
        times.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(times[WARM:]), min(times[WARM:])


def row(what, way, n, measure):
    """A row; what a version of PyTorch cannot do is told and left out."""
    try:
        median, least = measure()
        print(f"{what:>10} {way:>15} {n:>8} {median:>12.1f} {least:>12.1f}", flush=True)
    except Exception as error:
        why = str(error).strip().splitlines() or [""]
        print(f"{what:>10} {way:>15} {n:>8} not measured: {type(error).__name__}: {why[0]}", flush=True)


def measure(form, way, n, device, calls):
    x = FORMS[form](packed(n))
    net, step = Net(n, device), form
    if "compiled" in way:
        torch._dynamo.reset()
        step = torch.compile(form)
    call = Call(lambda x: step(net, x), x, n, device)
    # what is compiled is compiled before it is captured
    call.run()
    return micros(call.captured() if "graph" in way else call.run, device, calls)


def measure_norse(n, device, calls):
    return micros(Call(Norse(n, device).step, frame_of(packed(n)), n, device).run, device, calls)


def check(device):
    """Each form gives what the equations give in doubles, but for spikes at the very threshold."""
    n, x = 100, packed(100)
    before, after = Net(n, "cpu"), {}
    for name in ["z", "v", "i", "vo", "io"]:
        state = getattr(before, name)
        state.copy_(torch.rand(state.shape, generator=torch.Generator().manual_seed(2)))
    before.z.round_()

    def stepped(step, x, change):
        net = Net(n, "cpu")
        for name in vars(net):
            setattr(net, name, change(getattr(before, name).clone()))
        step(net, x)
        return net

    exact = stepped(dense, frame_of(x).double(), lambda t: t.double())
    for form, of in FORMS.items():
        ours = stepped(form, of(x).to(device), lambda t: t.to(device))
        differ = (ours.z.cpu() != exact.z).any(1)
        assert differ.sum() <= 2, f"{form.__name__}: spikes differ in {differ.sum()} of {n} streams"
        far = (ours.vo.cpu() - exact.vo)[~differ].abs().max()
        assert far < 1e-5, f"{form.__name__}: {far}"


def floor(device, calls):
    """Moving alone what a step of 10,000 streams moves."""
    n = STREAMS[-1]
    x = packed(n)
    call, net = Call(None, x, n, device), Net(n, device)
    state = torch.zeros(n, 3 * HIDDEN + 2 * CLASSES, device=device)
    address, count = (part.to(device) for part in unpacked(x))
    bag = torch.nn.functional.embedding_bag
    moves = {
        "4 MB up": lambda: call.there.copy_(call.up, non_blocking=True),
        "0.16 MB down": lambda: call.down.copy_(net.vo, non_blocking=True),
        "state read and written": lambda: state.add_(1),
        "100 rows a stream gathered": lambda: bag(
            address, net.input, per_sample_weights=count, mode="sum"
        ),
    }
    for what, move in moves.items():
        median, least = micros(move, device, calls)
        print(f"{what:>30} {median:>12.1f} {least:>12.1f}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    arguments.add_argument("--calls", type=int, default=300)
    told = arguments.parse_args()
    device, calls = told.device, told.calls
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("not measured: this PyTorch sees no CUDA device (--device cpu does without)")
    card = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {device}, {card}")
    ways = ["eager", "compiled"] + ["graph", "compiled graph"] * (device == "cuda")
    with torch.inference_mode():
        check(device)
        print(f"{'inputs':>10} {'way':>15} {'streams':>8} {'median µs':>12} {'least µs':>12}")
        for form in FORMS:
            for way in ways:
                for n in STREAMS:
                    row(form.__name__, way, n, lambda: measure(form, way, n, device, calls))
        for n in STREAMS:
            row("dense", "Norse, eager", n, lambda: measure_norse(n, device, calls))
        print(f"\n{'what moves, alone':>30} {'median µs':>12} {'least µs':>12}")
        floor(device, calls)


if __name__ == "__main__":
    main()
