#!/usr/bin/env python3
"""How far LatentSync's latents are from those of 20 steps when fewer are taken, on the weights and the clip of a golden folder.

    bench/parity/steps.py --original LatentSync --golden latentsync15

The published U-Net and diffusers' schedulers in PyTorch: the norm of the difference from DDIM in 20 steps over the norm of that
result. `guided last`: guidance in the last step alone. Random weights tell how schedules differ in numbers, and nothing of what
one sees.
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

import checkpoints


def denoise(unet, clip, scheduler, steps, guidance, last_alone):
    scheduler.set_timesteps(steps)
    latents, audio = clip["noise"], clip["audio"]
    both = torch.cat([torch.zeros_like(audio), audio])
    for i, t in enumerate(scheduler.timesteps):
        guided = not last_alone or i + 1 == steps
        x = torch.cat([scheduler.scale_model_input(latents, t), clip["condition"]], 1)
        if guided:
            without, heard = unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
            noise = without + guidance * (heard - without)
        else:
            noise = unet(x, t, encoder_hidden_states=audio).sample
        latents = scheduler.step(noise, t, latents).prev_sample
    return latents


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="checkout of bytedance/LatentSync")
    parser.add_argument("--golden", type=Path, required=True, help="folder of latentsync_unet.pt, config.json, golden.safetensors")
    args = parser.parse_args()
    published, _ = checkpoints.modules(args.original.resolve())
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
    config = json.loads((args.golden / "config.json").read_text())
    unet, _ = published.from_pretrained(config["model"], str(args.golden / "latentsync_unet.pt"))
    golden = load_file(args.golden / "golden.safetensors")
    frames = golden["chunk.in.faces"].shape[0]
    mask = golden["chunk.mid.mask"].expand(-1, -1, frames, -1, -1)
    clip = {"noise": golden["chunk.in.noise"].repeat(1, 1, frames, 1, 1), "audio": golden["chunk.in.audio"],
            "condition": torch.cat([mask, golden["chunk.mid.masked_latents"], golden["chunk.mid.ref_latents"]], 1)}
    ddim = DDIMScheduler.from_pretrained(str(args.original / "configs"))
    trailing = DDIMScheduler.from_config(ddim.config, timestep_spacing="trailing")
    dpm = DPMSolverMultistepScheduler.from_config(ddim.config)
    ways = [("DDIM, leading", ddim, False), ("DDIM, trailing", trailing, False), ("DDIM, trailing, guided last", trailing, True),
            ("DPM-Solver++", dpm, False)]
    scale = config["run"]["guidance_scale"]
    with torch.inference_mode():
        wanted = denoise(unet, clip, ddim, 20, scale, False)
        rows = {name: {n: float((denoise(unet, clip, way, n, scale, last) - wanted).norm() / wanted.norm())
                       for n in (2, 3, 4, 8, 10, 20)} for name, way, last in ways}
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
