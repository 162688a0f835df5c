#!/usr/bin/env python3
"""The networks of LatentSync on this CPU, Lipstream's beside PyTorch's in fp32, at the published widths with random weights.

    bench/latent_speed.py --original LatentSync --work /tmp/speed --threads 2

`--original` is a checkout of bytedance/LatentSync: its U-Net and its Whisper are what is measured against, and diffusers'
autoencoders. Checkpoints are written to `--work` in the published layouts, once, and imported by `lipstream import`. Both
programs get the same inputs, and their outputs are compared. Runs take turns, ours and theirs, with as many threads. Beside the
time on the clock stands the processor's, which other programs on the machine disturb less. PyTorch's U-Net and ours need 6 GB
each while they are compared; `--parts` leaves out what does not fit.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent / "parity"))
import checkpoints

HERE = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="checkout of bytedance/LatentSync")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints, 11 GB with the U-Net")
    parser.add_argument("--parts", default="unet,encoder,decoder,taesd,whisper 2 s,whisper 30 s")
    parser.add_argument("--devices", default="cpu:fp32,openvino:fp32,openvino:bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=16, help="of the U-Net's clip")
    parser.add_argument("--build", type=Path, default=HERE / "target/release")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# Part of the engine, what its open dimensions are, and PyTorch's inputs by the names of its ports.
NETWORKS = {
    "unet": ("unet", {"frames": None, "latent_height": 32, "latent_width": 32},
             {"sample": (1, 13, None, 32, 32), "timestep": (1,), "audio": (1, None, 50, 384)}),
    "encoder": ("encoder", {"height": 256, "width": 256}, {"pixels": (1, 3, 256, 256)}),
    "decoder": ("decoder", {"latent_height": 32, "latent_width": 32}, {"latents": (1, 4, 32, 32)}),
    "taesd": ("taesd", {"latent_height": 32, "latent_width": 32}, {"latents": (1, 4, 32, 32)}),
    "whisper 2 s": ("whisper", {"mel_columns": 200}, {"mel": (1, 80, 200)}),
    "whisper 30 s": ("whisper", {"mel_columns": 3000}, {"mel": (1, 80, 3000)}),
}


class Ours:
    """A network of the engine in a process of its own."""

    def __init__(self, args, part, sizes, inputs, device, precision):
        command = [args.build / "lipstream-bench-latent", "network", "--engine", checkpoints.engine(args.work), "--part", part,
                   "--device", device, "--precision", precision, "--threads", args.threads]
        for name, size in sizes.items():
            command += ["--size", f"{name}={size}"]
        for name in inputs:
            command += ["--input", f"{name}={args.work / name}.f32"]
        self.output = args.work / "output.f32"
        command += ["--output", self.output]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.loaded = json.loads(self.process.stdout.readline() or "null")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def run(self):
        """Milliseconds on the clock and of the processor."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return tuple(float(ms) for ms in self.process.stdout.readline().split())


def theirs(network):
    wall, cpu = time.perf_counter(), time.process_time()
    network()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def spread(runs, which):
    values = sorted(run[which] for run in runs)
    return {"median": statistics.median(values), "min": values[0], "max": values[-1]}


def measure(args, name):
    part, sizes, shapes = NETWORKS[name]
    sizes = {dimension: size or args.frames for dimension, size in sizes.items()}
    generator = np.random.default_rng(1)
    numbers = lambda shape: generator.standard_normal([size or args.frames for size in shape], np.float32)
    inputs = {port: numbers(shape) for port, shape in shapes.items()}
    if "timestep" in inputs:
        inputs["timestep"][:] = 501
    for port, values in inputs.items():
        values.tofile(args.work / f"{port}.f32")
    network = checkpoints.torch_network(args.original, args.work, name, {k: torch.from_numpy(v) for k, v in inputs.items()})
    with FlopCounterMode(display=False) as counted:
        wanted = np.concatenate([tensor.numpy().ravel() for tensor in network()])
    gflop = counted.get_total_flops() / 1e9
    for device in args.devices.split(","):
        device, precision = device.split(":")
        with Ours(args, part, sizes, inputs, device, precision) as ours:
            if ours.loaded is None:
                print(f"{name:13} {device} {precision}: does not run", file=sys.stderr)
                continue
            found = np.fromfile(ours.output, np.float32)
            ours.run(), theirs(network)
            both = [(ours.run(), theirs(network)) for _ in range(args.repeats)]
        row = {"network": name, "frames": sizes.get("frames"), "device": device, "precision": precision, "threads": args.threads, "gflop": gflop,
               "load_ms": ours.loaded["load_ms"], "repeats": args.repeats,
               "apart": float(np.abs(found - wanted).max() / wanted.std()),
               "ours_ms": spread([run[0] for run in both], 0), "torch_ms": spread([run[1] for run in both], 0),
               "ours_cpu_ms": spread([run[0] for run in both], 1), "torch_cpu_ms": spread([run[1] for run in both], 1)}
        for kind in ("ms", "cpu_ms"):
            row[f"ratio_{kind}"] = row[f"torch_{kind}"]["median"] / row[f"ours_{kind}"]["median"]
        yield row


def show(row):
    def one(who):
        ms = row[f"{who}_ms"]
        return f"{ms['median']:9.1f} ({ms['min']:.1f}..{ms['max']:.1f}) ms {row['gflop'] / ms['median'] * 1e3:6.1f} GFLOP/s"

    print(f"{row['network']:13} {row['gflop']:8.2f} GFLOP  {row['device']:8} {row['precision']:4} {one('ours')}  PyTorch {one('torch')}"
          f"  ratio {row['ratio_ms']:.2f}, of processor time {row['ratio_cpu_ms']:.2f}, apart {row['apart']:.1e}", flush=True)


def main():
    args = arguments()
    args.original, args.work, args.build = args.original.resolve(), args.work.resolve(), args.build.resolve()
    os.environ["XDG_DATA_HOME"] = str(args.work / "data")
    torch.set_num_threads(args.threads)
    names = [name.strip() for name in args.parts.split(",")]
    checkpoints.make(args.original, args.work, args.build, "unet" in names)
    rows = []
    with torch.inference_mode():
        for name in names:
            for row in measure(args, name):
                show(row)
                rows.append(row)
                if args.json:
                    args.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
