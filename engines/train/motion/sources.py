#!/usr/bin/env python3
"""What the motion model learns from, as one list of clips: videos, motion capture, synthetic voices (motion/voices.py), sounds that are no
speech (motion/rest.py) and a teacher's labels.

    python -m motion.sources --data DATA --cache CACHE      adds CACHE/motion/{mocap,teach}.npz to what motion/data.py wrote

Motion capture and the teacher only teach the opening. Of the capture it is a mix of blendshape weights brought to the population's spread; the
teacher is DH_live's audio-to-mouth model (MIT), weak alone and different in its errors: it heard much more speech than there is here.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from audio import RATE
from common import mesh
from common.runs import data_argument
from motion.batch import Clip

# Clips kept out of training by `--hold`: a second opinion beside the four free validation clips.
HELD = ("free_facegood", "free_retalking2", "free_lipreading_sample", "gen_edtalk_a", "gen_edtalk_b", "gen_joyhallo_2", "gen_joyhallo_h3",
        "gen_joyhallo_4b", "gen_dhlive_demo", "gen_anitalker_f2b", "gen_linly_1", "1114_3_16")

# Sampling weight and lag (seconds) by the name's beginning; the last match counts. A negative lag: the picture is ahead of the sound by
# as much and is read that much earlier; measured with a model trained without it. The mouths of weight 0 do not say what is heard.
TRUST = {"free_": (1.0, 0.0), "free_facegood": (1.0, -0.06), "free_infinitetalk": (1.0, 0.03), "free_latentsync1": (1.0, -0.04),
         "free_latentsyncrealtime": (1.0, 0.03), "free_lipreading": (1.0, -0.02), "free_retalking": (1.0, -0.04),
         "free_maxine_desk": (0.0, 0.0), "gen_": (1.0, -0.04),
         "gen_anitalker": (1.0, -0.06), "gen_anitalker_f2b": (0.4, -0.06), "gen_dhlive": (1.0, -0.08), "gen_edtalk": (1.0, -0.03),
         "gen_joyhallo": (1.0, -0.05), "gen_joyhallo_h": (1.0, -0.07), "gen_joyhallo_en": (0.5, -0.05), "gen_joyhallo_en_1": (0.1, -0.05),
         "gen_joyhallo_en_6": (0.1, -0.05), "gen_linly": (1.0, -0.025), "gen_livetalking": (0.0, 0.0)}

# Frames by which the teacher is late, and how much its labels count on the sound of each kind of clip.
TEACHER_LATE = 2
TAUGHT = {"free": 1.5, "gen": 0.5}


def basis_of(path):
    """The arrays of basis.npz, with `opening` [D]: population spreads of inner-lip opening per unit of each latent."""
    b = {k: v for k, v in np.load(path).items()}
    a, c = mesh.OPENING
    b["opening"] = (b["basis"][2 * c + 1] - b["basis"][2 * a + 1]) / b["spread"][0]
    return b


def group_of(name):
    """The set that a clip of validation is reported under."""
    return next((g for g in ("grid_s1", "grid_other", "free", "gen") if f"__{g}_" in name or f"__{g}__" in name), "other")


def trust(name):
    """(weight factor, lag in seconds) of a clip."""
    found = (1.0, 0.0)
    for part, value in TRUST.items():
        if f"train__{part}" in name:
            found = value
    return found


def load(cache, hold, kinds=None, sounds=True):
    """(training clips, evaluation clips as (group, Clip), basis)."""
    root = cache / "motion"
    basis = basis_of(root / "basis.npz")
    if not sounds:
        return [], [], basis
    training, held = [], []
    for part in ("clips", "mocap", "voice", "tongues", "teach", "rest"):
        if not (root / f"{part}.npz").exists():
            continue
        store = np.load(root / f"{part}.npz")
        for k, row in enumerate(json.loads(str(store["table"]))):
            pcm = store[f"pcm{k}"] if f"pcm{k}" in store else np.load(root / "pcm" / f"{row['name']}.npy")
            z = store[f"z{k}"] if f"z{k}" in store else None
            gap = store[f"gap{k}"] / (row["scale"] * basis["spread"][0])
            # The teacher only hears: it owes nothing to the clip's picture.
            weight, lag = (row["weight"], 0.0) if part == "teach" else trust(row["name"])
            clip = Clip(row["name"], row["kind"], pcm, z, gap.astype(np.float32), row["fps"], weight, lag)
            if row["val"]:
                held.append((f"val_{group_of(row['name'])}", clip))
            elif hold and any(h in row["name"] for h in HELD):
                if row["kind"] == "teach":
                    continue
                held.append(("mocap" if row["kind"] == "mocap" else "dev", clip))
            elif weight > 0 and (kinds is None or row["kind"] in kinds):
                training.append(clip)
    return training, held, basis


def speech_spread(cache, basis):
    """Median 5..95 % range of the opening (spreads) over the clips, what other sources are brought to."""
    clips, _, _ = load(cache, hold=False, kinds=("free", "gen", "grid_other"))
    return float(np.median([np.quantile(c.opening, 0.95) - np.quantile(c.opening, 0.05) for c in clips]))


def mocap(data, out, basis, spread):
    """Opening from blendshape weights: the jaw, the lips' own opening, less what presses them together."""
    names = (data / "mocap/names.txt").read_text().splitlines()

    def column(w, *wanted):
        return np.mean([w[:, k] for k in range(1, w.shape[1]) if names[k - 1] in wanted], 0)

    arrays, table = {}, []
    from motion.data import pcm

    for k, path in enumerate(sorted((data / "mocap").glob("*.npz"))):
        stored = np.load(path)
        w = stored["weights"].astype(np.float32)
        gap = column(w, "mouth_stretch_c") + 0.4 * column(w, "mouth_lowerLipDepress_l", "mouth_lowerLipDepress_r")
        gap = gap + 0.4 * column(w, "mouth_upperLipRaise_l", "mouth_upperLipRaise_r") + 0.15 * column(w, "mouth_funnel_dl", "mouth_funnel_ul")
        gap = np.maximum(0, gap - 0.3 * column(w, "mouth_press_l", "mouth_press_r"))
        gap = (gap - np.quantile(gap, 0.05)) / (np.quantile(gap, 0.95) - np.quantile(gap, 0.05)) * spread
        arrays[f"gap{k}"], arrays[f"pcm{k}"] = gap.astype(np.float32) * basis["spread"][0], pcm(path.with_suffix(".flac"))
        table.append({"name": f"mocap__{path.stem}", "kind": "mocap", "val": False, "fps": float(stored["fps"]), "scale": 1.0})
    np.savez(out / "mocap.npz", table=json.dumps(table), **arrays)
    return len(table)


def teacher(model, sound):
    """Coefficient 0 (grows with the opening) at 25 a second of DH_live's audio-to-mouth model, for int16 samples at 16 kHz. Its front-end: Kaldi's
    filter bank of 80, 50 ms every 20 ms, no dither, on a first 20 ms of silence."""
    import kaldi_native_fbank as knf
    import onnxruntime as ort

    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.frame_length_ms, options.frame_opts.frame_shift_ms = 0, 50, 20
    options.frame_opts.snip_edges, options.mel_opts.num_bins = False, 80
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(RATE, [0.0] * 320 + sound.astype(np.float32).tolist())
    bank.input_finished()
    count = bank.num_frames_ready // 2 * 2
    frames = np.stack([bank.get_frame(k) for k in range(count)])[None].astype(np.float32)
    state = np.zeros((2, 1, 192), np.float32)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"fbank": frames, "h": state, "c": state})[0][0, :, 0]


def taught(data, cache, basis, spread):
    """Pseudo-labels for real speech: the published teacher's opening, moved forward by the frames that it is late, at the population's spread."""
    from motion.data import pcm

    arrays, table = {}, []
    store = np.load(cache / "motion/clips.npz")
    rows = json.loads(str(store["table"]))
    sounds = [(f"speech__{p.stem}", 1.0, pcm(p)) for p in sorted((data / "speech").glob("*.flac"))]
    for row in rows:
        if not row["val"] and row["kind"] in TAUGHT and trust(row["name"])[0] > 0:
            sounds.append((row["name"], TAUGHT[row["kind"]], np.load(cache / "motion/pcm" / f"{row['name']}.npy")))
    for k, (name, weight, sound) in enumerate(sounds):
        gap = teacher(data / "models/dhlive_audio2mouth.onnx", sound)
        gap = np.concatenate([gap[TEACHER_LATE:], np.repeat(gap[-1:], TEACHER_LATE)])
        low, high = np.quantile(gap, [0.05, 0.95])
        arrays[f"gap{k}"] = ((gap - low) / max(high - low, 1e-6) * spread * basis["spread"][0]).astype(np.float32)
        arrays[f"pcm{k}"] = sound
        table.append({"name": f"teach__{name}", "kind": "teach", "val": False, "fps": 25, "scale": 1.0, "weight": weight})
    np.savez(cache / "motion/teach.npz", table=json.dumps(table), **arrays)
    return sum(len(arrays[f"pcm{k}"]) for k in range(len(table))) / RATE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_argument(parser)
    args = parser.parse_args()
    out = args.cache / "motion"
    basis = basis_of(out / "basis.npz")
    spread = speech_spread(args.cache, basis)
    print(f"{mocap(args.data, out, basis, spread)} recordings of motion capture")
    print(f"{taught(args.data, args.cache, basis, spread):.0f} s with the teacher's opening")


if __name__ == "__main__":
    main()
