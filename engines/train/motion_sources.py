#!/usr/bin/env python3
"""What the motion model learns from, as one list of clips: videos, motion capture, and synthetic voices with exact phone times.

    motion_sources.py --data DATA --cache CACHE      adds CACHE/motion/{mocap,voice}.npz to what motion_data.py wrote

Motion capture and voices only teach the opening. Of the capture it is a mix of blendshape weights brought to the population's spread;
of the voices (flite) it is a table of how far each phone opens the lips, smoothed as an articulator moves, lips shut in m, b and p.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from common import mesh
from common.runs import data_argument
from motion_batch import Clip

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

# How far a phone opens the inner lips, 0..1 of the 5..95 % range of speech (flite's names, the CMU set).
PHONES = {"aa": 0.95, "ae": 0.95, "ah": 0.65, "ao": 0.7, "aw": 0.8, "ax": 0.45, "ay": 0.8, "eh": 0.7, "er": 0.4, "ey": 0.6, "ih": 0.45, "iy": 0.4,
          "ow": 0.5, "oy": 0.55, "uh": 0.35, "uw": 0.22, "w": 0.12, "y": 0.35, "r": 0.3, "l": 0.45, "n": 0.3, "d": 0.3, "t": 0.28, "s": 0.22,
          "z": 0.22, "sh": 0.25, "zh": 0.25, "ch": 0.25, "jh": 0.25, "th": 0.3, "dh": 0.3, "f": 0.1, "v": 0.1, "k": 0.4, "g": 0.38, "ng": 0.35,
          "hh": 0.5, "m": 0.0, "b": 0.0, "p": 0.0, "pau": 0.0}
SHUT = ("m", "b", "p")
TRACK = 100
VOICES = ("slt", "rms", "awb", "kal16")

WORDS = """about above after again almost along always among animal answer apple autumn awful baby bacon balance banana basket beach because bedroom
before behind believe below beside better between beyond bicycle birthday blanket bottom boundary bread breakfast bridge bright bring brother brown
bubble build burden butter camera candle captain carpet castle catch chamber change chapter cheap cheese children chocolate choose circle city clever
climb cloud coffee colour common company copper corner cotton country cousin cover cream crowd culture curious damage danger daughter decide deep
deliver desert dinner doctor dolphin double dream drive during early earth easily echo effort eight either elbow eleven empty enough evening every
example fabric family famous farmer father feather fever fifteen figure finger finish flower follow forest forget forward frozen fruit future garden
gather gentle giant glass golden good gravel ground guitar habit half hammer happen harbour heavy helmet honest honey hospital hour house humble hundred
ice image important inside island jacket jewel journey judge jump keep kettle kitchen knife ladder lamp language laugh leader leather lemon letter level
library little lively local lonely lovely lunch machine magic manage marble market measure memory method middle million minute mirror moment money
morning mother mountain move museum music narrow nature nearly never nobody noise number ocean offer often onion open orange other outside oven paper
parent people pepper perfect photo picture pillow planet pleasure pocket poem police popular potato power present pretty problem promise public pumpkin
purple puzzle quality quarter question quiet rabbit railway rather reason record remember ribbon river robin rough rubber sailor salmon school season
second secret seven shadow shape sharp shelter shoulder shower silver simple sister sleep smooth soap somebody south special spoon square station
steam stone story strange street summer supper surprise sweet table teacher temper thank theatre thing thirty thought thousand through thumb thunder
ticket today together tomato tomorrow tongue towel travel treasure trouble tunnel twelve umbrella uncle under unique upper useful usually valley
vegetable very village violin visit voice volume wagon walk warm watch water weather wheel whisper white whole window winter wisdom wonder wooden word
world yellow yesterday young zebra the a of and to in is it that was for with his they at be this have from or had by but what all were we when your can
said there use an each which she do how their if will up out many then them these so some her would make like him into time has look two more go see no
way could my than first been call who its now find long down day did get come made may part""".split()


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
    for part in ("clips", "mocap", "voice"):
        if not (root / f"{part}.npz").exists():
            continue
        store = np.load(root / f"{part}.npz")
        for k, row in enumerate(json.loads(str(store["table"]))):
            pcm = store[f"pcm{k}"] if f"pcm{k}" in store else np.load(root / "pcm" / f"{row['name']}.npy")
            z = store[f"z{k}"] if f"z{k}" in store else None
            gap = store[f"gap{k}"] / (row["scale"] * basis["spread"][0])
            weight, lag = trust(row["name"])
            clip = Clip(row["name"], row["kind"], pcm, z, gap.astype(np.float32), row["fps"], weight, lag)
            if row["val"]:
                held.append((f"val_{group_of(row['name'])}", clip))
            elif hold and any(h in row["name"] for h in HELD):
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
    from motion_data import pcm

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


def track(phones, seconds):
    """Opening (0..1) at 100 a second from (phone, end time) pairs."""
    n = int(seconds * TRACK)
    target, shut, begin = np.zeros(n), np.zeros(n, bool), 0.0
    for phone, end in phones:
        a, b = int(begin * TRACK), min(n, max(int(end * TRACK), int(begin * TRACK) + 1))
        target[a:b] = PHONES.get(phone, 0.35)
        if phone in SHUT:
            shut[max(0, a - 1) : b] = True
        begin = end
    kernel = np.hanning(15)
    moved = np.convolve(np.pad(target, 7, mode="edge"), kernel / kernel.sum(), "valid")
    # Lips meet for the whole of a stop and need about 60 ms to come and go.
    distance = np.full(n, np.inf)
    where = np.flatnonzero(shut)
    if len(where):
        at = np.arange(n)
        after = np.clip(np.searchsorted(where, at), 0, len(where) - 1)
        distance = np.minimum(np.abs(where[after] - at), np.abs(where[np.maximum(after - 1, 0)] - at))
    return moved * np.clip(distance / 6.0, 0, 1)


def voice(out, basis, spread, count, seed):
    """Seeded sentences without sense in four voices, at several speeds and pitches."""
    rng, arrays, table = np.random.default_rng(seed), {}, []
    from motion_data import pcm

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        for k in range(count):
            words = [str(w) for w in rng.choice(WORDS, rng.integers(14, 26))]
            for at in sorted(rng.integers(3, len(words), 2), reverse=True):
                words[at] += ","
            name = VOICES[k % len(VOICES)]
            options = ["--setf", f"duration_stretch={rng.uniform(0.75, 1.2):.3f}"]
            if name in ("kal16", "awb", "rms"):
                options += ["--setf", f"int_f0_target_mean={rng.uniform(85, 150):.1f}"]
            said = subprocess.check_output(["flite", "-voice", name, *options, "-psdur", "-t", " ".join(words) + ".", "-o", str(path)], text=True)
            phones = [(p, float(t)) for p, t in (x.split(":") for x in said.split())]
            sound = pcm(path)
            arrays[f"gap{k}"] = (track(phones, len(sound) / 16000) * spread * basis["spread"][0]).astype(np.float32)
            arrays[f"pcm{k}"] = sound
            table.append({"name": f"voice__{name}_{k}", "kind": "voice", "val": False, "fps": TRACK, "scale": 1.0})
    np.savez(out / "voice.npz", table=json.dumps(table), **arrays)
    return sum(len(arrays[f"pcm{k}"]) for k in range(count)) / 16000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_argument(parser)
    parser.add_argument("--voices", type=int, default=400, help="sentences to synthesise")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    out = args.cache / "motion"
    basis = basis_of(out / "basis.npz")
    spread = speech_spread(args.cache, basis)
    print(f"{mocap(args.data, out, basis, spread)} recordings of motion capture")
    print(f"{voice(out, basis, spread, args.voices, args.seed):.0f} s of synthetic voices, spread {spread:.3f}")


if __name__ == "__main__":
    main()
