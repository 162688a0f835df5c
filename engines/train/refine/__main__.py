#!/usr/bin/env python3
"""The refinement network of `compact`: what a warp of the person's own frame cannot show.

    python -m refine pack   --data DATA --cache CACHE               triples and val sequences, CACHE/refine
    python -m refine train  --cache CACHE --out CACHE/runs/refine   resumes from last.pt
    python -m refine eval   --cache CACHE --model MODEL.onnx        warp against refined on unseen people; --sheet for pictures
    python -m refine export --run CACHE/runs/refine --model MODEL.onnx      or --from SHIPPED.onnx: its weights in the network as it is now
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Packing has a process a core: threads of its linear algebra would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from refine import data
import tensors
from common.runs import data_argument

MODELS = Path(__file__).resolve().parents[2] / "models"


def pack(args):
    template = np.array(json.loads((MODELS / "tracker/template.json").read_text())["points"])
    pose = tensors.load(MODELS / "compact/basis.safetensors")["pose"]
    train, val = data.chosen(args.data)
    with ProcessPoolExecutor(args.processes) as pool:
        jobs = [(args.data, args.cache, r, template, pose, k) for k, r in enumerate(train)]
        packed = []
        for relative, rows in pool.map(data.pack_train, jobs):
            print(f"{relative}: {len(rows)}", flush=True)
            packed.append((relative, rows))
        print(data.save_train(args.cache / "refine/train", packed), "rows", flush=True)
        packed.clear()
        for relative, lengths in pool.map(data.pack_val, [(args.data, args.cache, r, template, pose) for r in val]):
            print(f"{relative}: {lengths}", flush=True)


def evaluate(args):
    import cv2

    from refine import measure

    predict = measure.onnx_predictor(args.model)
    for part in ("open", "shut"):
        table = {}
        for name, sequence in measure.load(args.cache / "refine/val" / part):
            at = np.arange(len(sequence["truth"]))
            picture = measure.refined(sequence, predict, at)
            table[name] = measure.figures(sequence, sequence["warped"], at), measure.figures(sequence, picture, at)
            before, after = table[name]
            print(f"{part} {name:44}", "  ".join(f"{k} {before[k]:.3f} -> {after[k]:.3f}" for k in after), flush=True)
            if args.sheet:
                args.sheet.mkdir(parents=True, exist_ok=True)
                widest = np.argsort(-sequence["opening"])
                some = np.sort(np.concatenate([widest[:3], at[:: max(1, len(at) // 5)][:5]]))
                picked = measure.sheet(sequence, picture[some], some)
                cv2.imwrite(str(args.sheet / f"{part}__{name.replace('/', '__')}.png"), picked[..., ::-1])
        groups = {"unseen": measure.unseen, "unseen, talking": lambda n: "talking" in n and measure.unseen(n), "seen": lambda n: not measure.unseen(n)}
        for group, member in groups.items():
            rows = [r for n, r in table.items() if member(n)]
            if rows:
                median = lambda side, k: float(np.median([r[side][k] for r in rows if k in r[side]]))
                print(f"{part} MEDIAN {group} ({len(rows)})", "  ".join(f"{k} {median(0, k):.3f} -> {median(1, k):.3f}" for k in rows[0][0]), flush=True)


def weights(path):
    """What torch calls the arrays of an exported network."""
    import onnx
    import torch

    return {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(str(path)).graph.initializer}


def export(args):
    import torch

    from refine import measure
    from refine import net
    from common.layers import flops

    network = net.Refiner()
    network.load_state_dict(torch.load(args.run / "last.pt", weights_only=True)["average"] if args.run else weights(args.shipped))
    network.eval()
    names = ["nearest", "second", "shapes", "openings"]
    probe = lambda n: (torch.rand(n, 3, 128, 128), torch.rand(n, 3, 128, 128), torch.rand(n, 2, 128, 128), 3 * torch.rand(n, 3))
    args.model.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(network, probe(1), str(args.model), opset_version=17, input_names=names, output_names=["delta"],
                      dynamic_axes={k: {0: "batch"} for k in [*names, "delta"]}, dynamo=False)
    predict, worst = measure.onnx_predictor(args.model), 0.0
    for n in (1, 3):
        given = probe(n)
        with torch.no_grad():
            expected = network(*given).numpy()
        worst = max(worst, float(np.abs(expected - predict(*(v.numpy() for v in given))).max()))
    if worst > 1e-4:
        raise SystemExit(f"{args.model}: ONNX differs from torch by {worst:.1e}")
    print(f"{args.model}: {flops(network, *probe(1)) / 1e9:.3f} GFLOP, {sum(p.numel() for p in network.parameters())} parameters, "
          f"largest difference to torch {worst:.1e}")


def train(args):
    from refine import train

    train.train(args)


def main():
    parser = argparse.ArgumentParser(prog="python -m refine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    p = sub.add_parser("pack")
    data_argument(p)
    p.add_argument("--processes", type=int, default=2)
    p.set_defaults(run_=pack)
    p = sub.add_parser("train")
    p.add_argument("--cache", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--init", type=Path, help="last.pt of another run whose averaged weights this one starts from")
    p.add_argument("--steps", type=int, default=2600)
    p.add_argument("--batch", type=int, default=24)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--judge", type=float, default=0.0, help="weight of the patch judge; 0: none")
    p.add_argument("--judge-from", type=int, default=0, help="first step with the judge")
    p.add_argument("--every", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.set_defaults(run_=train)
    p = sub.add_parser("eval")
    p.add_argument("--cache", type=Path, required=True)
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--sheet", type=Path, help="folder for pictures: truth, warp, refined")
    p.set_defaults(run_=evaluate)
    p = sub.add_parser("export")
    beginning = p.add_mutually_exclusive_group(required=True)
    beginning.add_argument("--run", type=Path)
    beginning.add_argument("--from", type=Path, dest="shipped", help="an exported network")
    p.add_argument("--model", type=Path, required=True)
    p.set_defaults(run_=export)
    args = parser.parse_args()
    args.run_(args)


if __name__ == "__main__":
    main()
