#!/usr/bin/env python3
"""Synthetic voices with exact phone times, for the opening of the mouth: flite's four, and festival's in nine languages.

    python -m motion.voices --data DATA --cache CACHE [--count N]      writes CACHE/motion/{voice,tongues}.npz; needs flite, festival and festival's voices

A table says how far each phone opens the lips; the track is smoothed as an articulator moves, lips shut in m, b and p. English voices say words of
a list, the others syllables that their language could have: what is learnt is how sounds look, not words.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from common.runs import data_argument
from motion.sources import basis_of, speech_spread

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

# How far a phone opens the inner lips, 0..1 of the 5..95 % range of speech (flite's names, the CMU set).
PHONES = {"aa": 0.95, "ae": 0.95, "ah": 0.65, "ao": 0.7, "aw": 0.8, "ax": 0.45, "ay": 0.8, "eh": 0.7, "er": 0.4, "ey": 0.6, "ih": 0.45, "iy": 0.4,
          "ow": 0.5, "oy": 0.55, "uh": 0.35, "uw": 0.22, "w": 0.12, "y": 0.35, "r": 0.3, "l": 0.45, "n": 0.3, "d": 0.3, "t": 0.28, "s": 0.22,
          "z": 0.22, "sh": 0.25, "zh": 0.25, "ch": 0.25, "jh": 0.25, "th": 0.3, "dh": 0.3, "f": 0.1, "v": 0.1, "k": 0.4, "g": 0.38, "ng": 0.35,
          "hh": 0.5, "m": 0.0, "b": 0.0, "p": 0.0, "pau": 0.0}
# The same by the first letter of other sets' names, lengths and stress taken off.
LETTERS = {"a": 0.9, "e": 0.62, "i": 0.4, "o": 0.55, "u": 0.25, "y": 0.28, "O": 0.65, "E": 0.68, "A": 0.9, "I": 0.42, "U": 0.3, "@": 0.45, "w": 0.12,
           "j": 0.35, "r": 0.32, "R": 0.32, "l": 0.42, "L": 0.4, "n": 0.3, "N": 0.32, "J": 0.33, "d": 0.3, "D": 0.32, "t": 0.28, "T": 0.3, "s": 0.22,
           "S": 0.25, "z": 0.22, "Z": 0.25, "c": 0.26, "C": 0.26, "q": 0.4, "x": 0.42, "h": 0.5, "H": 0.5, "k": 0.4, "g": 0.38, "G": 0.4, "f": 0.1,
           "v": 0.1, "B": 0.1, "m": 0.0, "b": 0.0, "p": 0.0, "#": 0.0, "_": 0.0}
SHUT = ("m", "b", "p")
TRACK = 100
FLITE = ("slt", "rms", "awb", "kal16")
# Voice -> (onsets, vowels, codas) that its text is made of.
LATIN = ("b c d f g l m n p r s t v z br tr st sp".split(), "a e i o u ai ia".split(), ["", "", "", "n", "r", "l", "m"])
CZECH = ("b c d f h j k l m n p r s t v z bl kr st mn".split(), "a e i o u y ou".split(), ["", "", "t", "k", "m", "n", "s"])
FINNISH = ("h j k l m n p r s t v".split(), "a e i o u y aa ii ei uo".split(), ["", "", "n", "s", "t"])
RUSSIAN = ("б в г д ж з к л м н п р с т ф х ч ш".split(), "а е и о у я ы".split(), ["", "", "м", "н", "к", "т", "п"])
HINDI = ("क ख ग च ज ट ड त द न प ब भ म य र ल व स ह".split(), ["", "ा", "ि", "ी", "ु", "ू", "े", "ो"], ["", "", "न", "म", "र"])
TELUGU = ("క గ చ జ ట డ త ద న ప బ మ య ర ల వ స హ".split(), ["", "ా", "ి", "ీ", "ు", "ూ", "ె", "ొ"], [""])
FESTIVAL = {"kal_diphone": None, "ked_diphone": None, "cmu_us_slt_arctic_hts": None, "lp_diphone": LATIN, "pc_diphone": LATIN, "upc_ca_ona_hts": LATIN,
            "czech_dita": CZECH, "czech_krb": CZECH, "czech_machac": CZECH, "czech_ph": CZECH, "hy_fi_mv_diphone": FINNISH,
            "suo_fi_lj_diphone": FINNISH, "msu_ru_nsh_clunits": RUSSIAN, "hindi_NSK_diphone": HINDI, "marathi_NSK_diphone": HINDI,
            "telugu_NSK_diphone": TELUGU}


def opened(phone):
    """(opening 0..1, whether the lips are shut) of a phone of any set."""
    if phone in PHONES:
        return PHONES[phone], phone in SHUT
    return LETTERS.get(phone[:1], 0.35), phone[:1] in SHUT


def track(phones, seconds):
    """Opening (0..1) at 100 a second from (phone, end time) pairs."""
    n = int(seconds * TRACK)
    target, shut, begin = np.zeros(n), np.zeros(n, bool), 0.0
    for phone, end in phones:
        a, b = int(begin * TRACK), min(n, max(int(end * TRACK), int(begin * TRACK) + 1))
        target[a:b], closed = opened(phone)
        if closed:
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


def sentence(rng, kind):
    """Text of some twenty words with two pauses."""
    if kind is None:
        words = [str(w) for w in rng.choice(WORDS, rng.integers(14, 26))]
    else:
        onsets, vowels, codas = kind
        syllable = lambda: str(rng.choice(onsets)) + str(rng.choice(vowels)) + str(rng.choice(codas))
        words = ["".join(syllable() for _ in range(rng.integers(1, 4))) for _ in range(rng.integers(10, 18))]
    for at in sorted(rng.integers(3, len(words), 2), reverse=True):
        words[at] += ","
    return " ".join(words) + "."


def say_flite(rng, voice, path):
    """Speaks into `path`; the phones with their end times."""
    options = ["--setf", f"duration_stretch={rng.uniform(0.75, 1.2):.3f}"]
    if voice in ("kal16", "awb", "rms"):
        options += ["--setf", f"int_f0_target_mean={rng.uniform(85, 150):.1f}"]
    said = subprocess.check_output(["flite", "-voice", voice, *options, "-psdur", "-t", sentence(rng, None), "-o", str(path)], text=True)
    return [(p, float(t)) for p, t in (x.split(":") for x in said.split())]


def say_festival(rng, voice, path):
    script = f"""(voice_{voice}) (Parameter.set 'Duration_Stretch {rng.uniform(0.7, 1.15):.3f})
(set! said (utt.synth (Utterance Text "{sentence(rng, FESTIVAL[voice])}"))) (utt.save.wave said "{path}" 'riff)
(mapcar (lambda (s) (format t "%s|%f\\n" (item.name s) (item.feat s 'end))) (utt.relation.items said 'Segment))"""
    done = subprocess.run(["festival", "--pipe"], input=script, capture_output=True, text=True, timeout=60)
    rows = [line.rsplit("|", 1) for line in done.stdout.splitlines() if "|" in line]
    return [(p, float(t)) for p, t in rows]


def make(out, name, voices, say, count, basis, spread, rng):
    """`count` sentences, in turns by `voices`, as CACHE/motion/NAME.npz; their seconds."""
    from motion.data import pcm

    arrays, table = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        for k in range(count):
            voice = voices[k % len(voices)]
            phones = say(rng, voice, path)
            if not phones:
                raise SystemExit(f"{voice} says nothing: is it installed?")
            sound = pcm(path)
            # Some voices end before their last pause does.
            length = len(sound) / 16000
            i = len(table)
            arrays[f"gap{i}"] = (track(phones, length) * spread * basis["spread"][0]).astype(np.float32)
            arrays[f"pcm{i}"] = sound
            table.append({"name": f"{name}__{voice}_{k}", "kind": name, "val": False, "fps": TRACK, "scale": 1.0})
    np.savez(out / f"{name}.npz", table=json.dumps(table), **arrays)
    return sum(len(arrays[f"pcm{i}"]) for i in range(len(table))) / 16000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_argument(parser)
    parser.add_argument("--count", type=int, default=400, help="sentences of each synthesiser")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--only", choices=("voice", "tongues"))
    args = parser.parse_args()
    out = args.cache / "motion"
    basis = basis_of(out / "basis.npz")
    spread = speech_spread(args.cache, basis)
    for name, voices, say in (("voice", FLITE, say_flite), ("tongues", tuple(FESTIVAL), say_festival)):
        if args.only in (None, name):
            seconds = make(out, name, voices, say, args.count, basis, spread, np.random.default_rng(args.seed))
            print(f"{name}: {seconds:.0f} s in {len(voices)} voices")


if __name__ == "__main__":
    main()
