#!/usr/bin/env python3
"""Speed of the published families' networks in PyTorch: what Lipstream's engines for them are measured against.

The networks are written here at the published widths with random weights; only their shapes and their arithmetic count.
Each figure is printed, and the report written anew, as soon as it is there. --dry runs all of it at small widths on the CPU.
"""
import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    def __init__(self, cin, cout, temb, groups, eps):
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(groups, cin, eps), nn.Conv2d(cin, cout, 3, padding=1)
        self.t = nn.Linear(temb, cout) if temb else None
        self.n2, self.c2 = nn.GroupNorm(groups, cout, eps), nn.Conv2d(cout, cout, 3, padding=1)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()
        self.frames = 1

    def norm(self, n, x):
        """Statistics over the frames of a clip jointly."""
        if self.frames == 1:
            return n(x)
        b, c, h, w = x.shape
        y = x.view(b // self.frames, self.frames, c, h * w).transpose(1, 2)
        return n(y.reshape(b // self.frames, c, -1)).view(b // self.frames, c, self.frames, h * w).transpose(1, 2).reshape(b, c, h, w)

    def forward(self, x, temb=None):
        h = self.c1(F.silu(self.norm(self.n1, x)))
        if self.t is not None:
            h = h + self.t(F.silu(temb))[:, :, None, None]
        return self.skip(x) + self.c2(F.silu(self.norm(self.n2, h)))


class Attention(nn.Module):
    def __init__(self, dim, heads, context=None):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(d, dim, bias=False) for d in (dim, context or dim, context or dim))
        self.o = nn.Linear(dim, dim)

    def forward(self, x, context=None):
        context = x if context is None else context
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(context)), split(self.v(context)))
        return self.o(out.transpose(1, 2).flatten(2))


class GegluMlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.up, self.down = nn.Linear(dim, dim * 8), nn.Linear(dim * 4, dim)

    def forward(self, x):
        a, gate = self.up(x).chunk(2, -1)
        return self.down(a * F.gelu(gate))


class Transformer(nn.Module):
    def __init__(self, dim, heads, context, groups):
        super().__init__()
        self.norm, self.inp, self.out = nn.GroupNorm(groups, dim, 1e-6), nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.n1, self.n2, self.n3 = (nn.LayerNorm(dim) for _ in range(3))
        self.a1, self.a2, self.mlp = Attention(dim, heads), Attention(dim, heads, context), GegluMlp(dim)

    def forward(self, x, context):
        h = self.inp(self.norm(x))
        shape = h.shape
        h = h.flatten(2).transpose(1, 2)
        h = h + self.a1(self.n1(h))
        h = h + self.a2(self.n2(h), context)
        h = h + self.mlp(self.n3(h))
        return x + self.out(h.transpose(1, 2).reshape(shape))


class Motion(nn.Module):
    """Two temporal self-attentions and a perceptron, over the frames of each place."""

    def __init__(self, dim, frames, groups):
        super().__init__()
        self.frames = frames
        self.norm, self.inp, self.out = nn.GroupNorm(groups, dim, 1e-6), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.n = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.a = nn.ModuleList(Attention(dim, 8) for _ in range(2))
        self.mlp = GegluMlp(dim)
        self.position = nn.Parameter(torch.randn(frames, dim) * 0.02)

    def forward(self, x):
        b, c, hh, ww = x.shape
        h = self.norm(x).view(b // self.frames, self.frames, c, hh * ww).permute(0, 3, 1, 2).reshape(-1, self.frames, c)
        h = self.inp(h)
        for n, a in zip(self.n, self.a):
            h = h + a(n(h) + self.position)
        h = self.out(h + self.mlp(self.n[2](h)))
        return x + h.view(b // self.frames, hh * ww, self.frames, c).permute(0, 2, 3, 1).reshape(x.shape)


class UNet(nn.Module):
    """The U-Net of Stable Diffusion 1.5: two blocks a level, attention at all but the last; motion modules where frames > 1."""

    def __init__(self, cin, context, widths, groups, frames=1, heads=8):
        super().__init__()
        temb = widths[0] * 4
        self.width, self.frames = widths[0], frames
        self.time = nn.Sequential(nn.Linear(widths[0], temb), nn.SiLU(), nn.Linear(temb, temb))
        self.inp = nn.Conv2d(cin, widths[0], 3, padding=1)

        def stage(cin, cout, attend, motion=True):
            parts = [ResBlock(cin, cout, temb, groups, 1e-5)]
            if attend:
                parts.append(Transformer(cout, heads, context, groups))
            if motion and frames > 1:
                parts.append(Motion(cout, frames, groups))
            return nn.ModuleList(parts)

        self.down, self.up, skips, c = nn.ModuleList(), nn.ModuleList(), [widths[0]], widths[0]
        last = len(widths) - 1
        for i, w in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(2):
                blocks.append(stage(c, w, i != last))
                c = w
                skips.append(c)
            shrink = nn.Conv2d(c, c, 3, stride=2, padding=1) if i != last else None
            if shrink:
                skips.append(c)
            self.down.append(nn.ModuleList([blocks, shrink] if shrink else [blocks]))
        self.mid = nn.ModuleList([*stage(c, c, True, motion=False), ResBlock(c, c, temb, groups, 1e-5)])
        for i, w in reversed(list(enumerate(widths))):
            blocks = nn.ModuleList()
            for _ in range(3):
                blocks.append(stage(c + skips.pop(), w, i != last))
                c = w
            self.up.append(nn.ModuleList([blocks, nn.Conv2d(c, c, 3, padding=1)] if i else [blocks]))
        self.norm, self.out = nn.GroupNorm(groups, c, 1e-5), nn.Conv2d(c, 4, 3, padding=1)
        for m in self.modules():
            if isinstance(m, ResBlock):
                m.frames = frames

    @staticmethod
    def through(parts, x, temb, context):
        for p in parts:
            x = p(x, temb) if isinstance(p, ResBlock) else p(x, context) if isinstance(p, Transformer) else p(x)
        return x

    def forward(self, x, t, context):
        half = self.width // 2
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half, device=x.device) / half)
        temb = self.time(torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype))
        x = self.inp(x)
        skips = [x]
        for level in self.down:
            for parts in level[0]:
                x = self.through(parts, x, temb, context)
                skips.append(x)
            if len(level) > 1:
                x = level[1](x)
                skips.append(x)
        x = self.through(self.mid, x, temb, context)
        for level in self.up:
            for parts in level[0]:
                x = self.through(parts, torch.cat([x, skips.pop()], 1), temb, context)
            if len(level) > 1:
                x = level[1](F.interpolate(x, scale_factor=2.0))
        return self.out(F.silu(self.norm(x)))


class VaeAttention(nn.Module):
    def __init__(self, dim, groups):
        super().__init__()
        self.norm, self.a = nn.GroupNorm(groups, dim, 1e-6), Attention(dim, 1)

    def forward(self, x):
        h = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.a(h).transpose(1, 2).reshape(x.shape)


def vae(widths, groups, decode):
    """The encoder or the decoder of Stable Diffusion's VAE: 8 px to 1, 4 channels."""
    res = lambda a, b: ResBlock(a, b, 0, groups, 1e-6)
    mid = lambda c: [res(c, c), VaeAttention(c, groups), res(c, c)]
    if decode:
        c = widths[-1]
        parts = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, c, 3, padding=1), *mid(c)]
        for i, w in reversed(list(enumerate(widths))):
            for _ in range(3):
                parts.append(res(c, w))
                c = w
            if i:
                parts += [nn.Upsample(scale_factor=2.0), nn.Conv2d(c, c, 3, padding=1)]
        return nn.Sequential(*parts, nn.GroupNorm(groups, c, 1e-6), nn.SiLU(), nn.Conv2d(c, 3, 3, padding=1))
    c = widths[0]
    parts = [nn.Conv2d(3, c, 3, padding=1)]
    for i, w in enumerate(widths):
        for _ in range(2):
            parts.append(res(c, w))
            c = w
        if i + 1 < len(widths):
            parts += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(c, c, 3, stride=2)]
    return nn.Sequential(*parts, *mid(c), nn.GroupNorm(groups, c, 1e-6), nn.SiLU(), nn.Conv2d(c, 8, 3, padding=1), nn.Conv2d(8, 8, 1))


class Wav2Lip(nn.Module):
    """Two encoders (96 px face pair, 80 x 16 mel), a decoder with skips; `k` divides the widths."""

    def __init__(self, k=1):
        super().__init__()

        def conv(a, b, kernel, stride, pad, res=False):
            m = nn.Sequential(nn.Conv2d(a, b, kernel, stride, pad), nn.BatchNorm2d(b))
            m.res = res
            return m

        def up(a, b, kernel=3, stride=2, pad=1, extra=1):
            return nn.Sequential(nn.ConvTranspose2d(a, b, kernel, stride, pad, extra), nn.BatchNorm2d(b), nn.ReLU())

        s = lambda c: c // k
        same = lambda c, n: [conv(s(c), s(c), 3, 1, 1, True) for _ in range(n)]
        face = [[conv(6, s(16), 7, 1, 3)]]
        for a, b, n in ((16, 32, 2), (32, 64, 3), (64, 128, 2), (128, 256, 2), (256, 512, 1)):
            face.append([conv(s(a), s(b), 3, 2, 1), *same(b, n)])
        face.append([conv(s(512), s(512), 3, 1, 0), conv(s(512), s(512), 1, 1, 0)])
        self.face = nn.ModuleList(nn.ModuleList(b) for b in face)
        self.audio = nn.ModuleList([
            conv(1, s(32), 3, 1, 1), *same(32, 2), conv(s(32), s(64), 3, (3, 1), 1), *same(64, 2),
            conv(s(64), s(128), 3, 3, 1), *same(128, 2), conv(s(128), s(256), 3, (3, 2), 1), *same(256, 1),
            conv(s(256), s(512), 3, 1, 0), conv(s(512), s(512), 1, 1, 0)])
        decoder = [[conv(s(512), s(512), 1, 1, 0)], [up(s(1024), s(512), 3, 1, 0, 0), *same(512, 1)]]
        for a, b, n in ((1024, 512, 2), (768, 384, 2), (512, 256, 2), (320, 128, 2), (160, 64, 2)):
            decoder.append([up(s(a), s(b)), *same(b, n)])
        self.decoder = nn.ModuleList(nn.ModuleList(b) for b in decoder)
        self.out = nn.Sequential(nn.Conv2d(s(80), s(32), 3, 1, 1), nn.BatchNorm2d(s(32)), nn.ReLU(), nn.Conv2d(s(32), 3, 1), nn.Sigmoid())

    @staticmethod
    def through(block, x):
        for m in block:
            y = m(x)
            x = y if not hasattr(m, "res") else F.relu(y + x) if m.res else F.relu(y)
        return x

    def forward(self, mel, face):
        skips = []
        for block in self.face:
            face = self.through(block, face)
            skips.append(face)
        x = self.through(self.audio, mel)
        for block in self.decoder:
            x = torch.cat([self.through(block, x), skips.pop()], 1)
        return self.out(x)


class Whisper(nn.Module):
    """Whisper's encoder over 30 s (3000 columns of 80 mels)."""

    def __init__(self, dim=384, heads=6, layers=4, columns=3000):
        super().__init__()
        self.c1, self.c2 = nn.Conv1d(80, dim, 3, padding=1), nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.randn(columns // 2, dim) * 0.02)
        self.blocks = nn.ModuleList(nn.ModuleList([nn.LayerNorm(dim), Attention(dim, heads), nn.LayerNorm(dim),
                                    nn.Linear(dim, dim * 4), nn.Linear(dim * 4, dim)]) for _ in range(layers))

    def forward(self, mel):
        x = F.gelu(self.c2(F.gelu(self.c1(mel)))).transpose(1, 2) + self.position
        for n1, attend, n2, up, down in self.blocks:
            x = x + attend(n1(x))
            x = x + down(F.gelu(up(n2(x))))
        return x


class Bench:
    def __init__(self, args):
        self.args, self.dry = args, args.dry
        self.device = "cpu" if args.dry else "cuda"
        self.dtype = torch.float32 if args.dry else torch.float16
        self.report = {"torch": torch.__version__, "dtype": str(self.dtype), "dry": args.dry, "ceilings": {}, "figures": []}
        self.peak = None
        if not args.dry:
            self.report |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        torch.backends.cudnn.benchmark = True

    def save(self):
        if self.args.json:
            with open(self.args.json, "w") as f:
                json.dump(self.report, f, indent=1)

    def median(self, run, seconds):
        """Median and 95th percentile in ms, after a warm-up, by device events."""
        times = []
        if self.dry:
            for _ in range(2):
                begin = time.perf_counter()
                run()
                times.append((time.perf_counter() - begin) * 1e3)
        else:
            for _ in range(3):
                run()
            torch.cuda.synchronize()
            begin = time.perf_counter()
            while len(times) < 5 or (time.perf_counter() - begin < seconds and len(times) < 300):
                a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                a.record()
                run()
                b.record()
                b.synchronize()
                times.append(a.elapsed_time(b))
        times.sort()
        return times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.95))]

    def ceilings(self):
        """What the card reaches in a large product and a large copy."""
        if self.dry:
            return
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
        ms, _ = self.median(lambda: a @ b, 0.3)
        self.peak = 2 * 8192**3 / ms / 1e9
        x, y = (torch.randn(1 << 29, device="cuda") for _ in range(2))
        ms_copy, _ = self.median(lambda: y.copy_(x), 0.3)
        self.report["ceilings"] = {"fp16_tflops": self.peak, "copy_tb_s": 2 * x.nbytes / ms_copy / 1e9}
        print(f"ceilings: fp16 product {self.peak:.0f} TFLOP/s, copy {self.report['ceilings']['copy_tb_s']:.2f} TB/s", flush=True)
        self.save()

    def tensor(self, *shape):
        t = torch.randn(*shape, device=self.device, dtype=self.dtype)
        return t.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else t

    def network(self, name, make, cases, items):
        """`cases`: batch -> inputs; `items`: how many frames (or windows) one item of a batch is."""
        from torch.utils.flop_counter import FlopCounterMode

        try:
            torch.manual_seed(7)
            with torch.device(self.device):
                net = make()
            net = net.to(self.dtype).eval().requires_grad_(False)
            net = net.to(memory_format=torch.channels_last)
            parameters = sum(p.numel() for p in net.parameters())
            for batch, inputs in cases.items():
                inputs = inputs()
                with FlopCounterMode(display=False) as counter:
                    out = net(*inputs)
                flops = counter.get_total_flops()
                if not torch.isfinite(out).all():
                    raise RuntimeError("the output is not finite")
                figure = {"network": name, "parameters": parameters, "batch": batch, "frames": batch * items, "gflop": flops / 1e9}
                self.figure(figure, "eager", lambda: net(*inputs))
                if not self.dry:
                    figure |= {"memory_mb": torch.cuda.max_memory_allocated() / 1e6}
                    graph = torch.cuda.CUDAGraph()
                    side = torch.cuda.Stream()
                    side.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(side):
                        net(*inputs)
                    torch.cuda.current_stream().wait_stream(side)
                    with torch.cuda.graph(graph):
                        net(*inputs)
                    self.figure(figure, "graph", graph.replay)
                    del graph
                self.report["figures"].append(figure)
                self.save()
                if self.args.compile and batch == 1:
                    begin = time.perf_counter()
                    fast = torch.compile(net)
                    fast(*inputs)
                    figure["compile_s"] = time.perf_counter() - begin
                    self.figure(figure, "compiled", lambda: fast(*inputs))
                    self.save()
        except Exception as e:  # One network's failure leaves the others their figures.
            print(f"{name}: {type(e).__name__}: {e}", flush=True)
            self.report["figures"].append({"network": name, "error": f"{type(e).__name__}: {e}"[:400]})
            self.save()
        net = None
        if not self.dry:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def figure(self, into, how, run):
        ms, p95 = self.median(run, self.args.seconds)
        tflops = into["gflop"] / ms
        into[how] = {"ms": ms, "p95_ms": p95, "fps": into["frames"] / ms * 1e3, "tflops": tflops}
        share = ""
        if self.peak:
            into[how]["of_peak"] = tflops / self.peak
            share = f", {100 * tflops / self.peak:.0f} % of the product's rate"
        print(f"{into['network']} batch {into['batch']} {how}: {ms:.2f} ms (p95 {p95:.2f}), {into[how]['fps']:.0f} frames a second, "
              f"{into['gflop'] / 1e3:.3f} TFLOP, {tflops:.0f} TFLOP/s{share}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--json")
    p.add_argument("--dry", action="store_true", help="small widths, float32, CPU, no timing worth the name")
    p.add_argument("--seconds", type=float, default=0.5, help="of one timing after its warm-up")
    p.add_argument("--compile", action="store_true", help="torch.compile besides, at batch 1")
    p.add_argument("--only", default="", help="networks whose name holds this")
    args = p.parse_args()
    b = Bench(args)
    t = b.tensor
    if args.dry:
        widths, vaes, groups, batches, k, size, clip = (32, 64, 64, 64), (32, 32, 64, 64), 16, (1, 2), 8, 8, 4
        whisper = lambda: Whisper(32, 2, 1, 100)
        columns = 100
    else:
        widths, vaes, groups, batches, k, size, clip = (320, 640, 1280, 1280), (128, 256, 512, 512), 32, (1, 2, 4, 8), 1, 32, 16
        whisper, columns = Whisper, 3000
    step = lambda n: torch.full((n,), 951.0, device=b.device)
    unet_in = lambda n, c: lambda: (t(n, c, size, size), step(n), t(n, 50, 384))
    clips = lambda times: {s: unet_in(s * clip * times, 13) for s in batches}
    parts = [
        # Guidance runs the clip twice, as one batch of double size; a batch here is one stream's clip.
        ("latentsync unet step", lambda: UNet(13, 384, widths, groups, clip), clips(1), clip),
        ("latentsync unet step, guided", lambda: UNet(13, 384, widths, groups, clip), clips(2), clip),
        ("vae decode 256", lambda: vae(vaes, groups, True), {n: (lambda n=n: (t(n, 4, size, size),)) for n in (1, 4, 16)}, 1),
        ("vae encode 256", lambda: vae(vaes, groups, False), {n: (lambda n=n: (t(n, 3, size * 8, size * 8),)) for n in (1, 4, 16)}, 1),
        ("musetalk unet", lambda: UNet(8, 384, widths, groups), {n: unet_in(n, 8) for n in (1, 2, 4, 8, 16)}, 1),
        ("wav2lip 96", lambda: Wav2Lip(k), {n: (lambda n=n: (t(n, 1, 80, 16), t(n, 6, 96, 96))) for n in (1, 4, 16, 64)}, 1),
        ("whisper tiny 30 s", whisper, {n: (lambda n=n: (t(n, 80, columns),)) for n in (1, 4)}, 1),
    ]
    with torch.inference_mode():
        b.ceilings()
        for part in parts:
            if args.only in part[0]:
                b.network(*part)
    b.save()


if __name__ == "__main__":
    main()
