"""`evaluate.py languages`: a person made to speak in many languages, and whether the lips close where the voice says so.

The voices are espeak-ng's, which tells when each of its phones ends; the lips shall be shut in the middle of m, b and p.
"""

import json
import wave

import numpy as np

from hearing import tongues
from hearing.mel import RATE as SOUND_RATE
from quality import figures, pair
from quality.people import Mouths, Renderer

CLOSING = "mbp"
# Words of a sentence, sentences of a language, words a minute.
WORDS, SENTENCES, SPEED = 8, 2, 150
NAMES = {"cmn-latn-pinyin": "zh"}


def middles(phones, offset=0.0):
    """Seconds at the middle of each phone of [(phone, end)] that shuts the lips, but of what a sentence begins with."""
    begins = [0.0, *(end for _, end in phones)]
    return [offset + (b + e) / 2 for b, (p, e) in zip(begins, phones) if p != "pau" and p[:1] in CLOSING and b > 0.1]


def speech(speaker, language, rng):
    """(int16 samples, times of closures in seconds) of some sentences."""
    parts, times, at = [], [], 0.0
    for _ in range(SENTENCES):
        words = " ".join(map(str, rng.choice(tongues.WORDS[language].split(), WORDS, replace=False)))
        voice = language + str(rng.choice(["", "+m3", "+f2", "+f4"]))
        sound, phones = speaker.say(words + ".", voice, SPEED, rng.uniform(30, 70))
        times += middles([(tongues.plain(p), e) for p, e in phones], at)
        parts.append(sound)
        at += len(sound) / SOUND_RATE
    return np.concatenate(parts), times


def write(path, samples):
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SOUND_RATE)
        out.writeframes(samples.astype("<i2").tobytes())
    return path


def table(rows):
    lines = [f"{'language':10} {'met':>5} {'depth':>6} {'of':>4}"]
    lines += [f"{r['language']:10} {r['closures']:5.2f} {r['closure_depth']:6.2f} {r['closure_count']:4d}" for r in rows]
    total = sum(r["closure_count"] for r in rows)
    mean = lambda key: sum(r[key] * r["closure_count"] for r in rows) / max(total, 1)
    return "\n".join([*lines, f"{'all':10} {mean('closures'):5.2f} {mean('closure_depth'):6.2f} {total:4d}"])


def run(args):
    args.out.mkdir(parents=True, exist_ok=True)
    mouths, render = Mouths(args.mouth or args.data.parent / "tools/mouth.py", args.out / "mouths"), Renderer(args)
    unknown = [name for name in args.only or [] if name not in tongues.WORDS]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: the languages are {', '.join(tongues.WORDS)}")
    speaker, rows = tongues.Speaker(), []
    for language in args.only or list(tongues.WORDS):
        # The same sentences whatever else is asked for.
        sound, times = speech(speaker, language, np.random.default_rng([7, *language.encode()]))
        heard = write(args.out / f"{language}.wav", sound)
        made = mouths(render(args.video, heard, f"{args.video.stem}--{language}.mp4"))
        found = figures.closures_at(made, times)
        if found is not None:
            rows.append({"language": NAMES.get(language, language)} | pair.closures(found))
    (args.out / "languages.json").write_text(json.dumps(rows, indent=1, default=float) + "\n")
    print(table(rows))
