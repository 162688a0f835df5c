"""`evaluate.py rest`: a person who has spoken hears sounds that are no speech; how far does the mouth move then?

One sound for all: a speech of SPEECH seconds, then every sound of `sounds` for STILL seconds, loud as in a room, with nothing after it. The opening by mouth.py: its deviation in a
sound over that in the speech. The first LEFT seconds of a sound are left out, in which the mouth comes to rest. `own` is the deviation in the video as it was filmed: of one whose mouth rests, it
is what the head and mouth.py make of it.
"""

import json

import numpy as np

from hearing.mel import RATE
from hearing.still import typing
from motion import rest
from quality.languages import write
from quality.media import sound
from quality.people import Mouths, Renderer

FPS = 25
SPEECH, STILL, LEFT = 11.0, 2.4, 0.6
SEED = 101
# Speech lies at about -20 dBFS; the others of a room are 20 dB below it.
VOICE = -20


def level(samples, decibels):
    return (samples / (np.sqrt(np.mean(samples**2)) + 1e-12) * 10 ** (decibels / 20)).astype(np.float32)


def babble(rng, voices, n):
    """All voices together, equally loud, each from somewhere in its recording."""
    return sum(level(np.roll(np.resize(v, max(n, len(v))), rng.integers(len(v)))[:n], VOICE) for v in voices)


def sounds(voices, seconds=STILL):
    """f32 samples by name; `voices` are recordings of people who talk far away, all at once."""
    rng, n = np.random.default_rng(SEED), int(seconds * RATE)
    made = {"silence": np.zeros(n, np.float32), "room": level(rest.noise(rng, n, 20, 500, 1.0), -45), "white": level(rng.standard_normal(n), -45),
            "hum": level(rest.tone(rng, 50, n), -40)}
    made |= {name: level(make(rng)[:n], VOICE - 6) for name, make in (("music", rest.music), ("breath", rest.breath), ("typing", typing), ("whistle", rest.whistle))}
    return made | {"babble": level(babble(rng, voices, n), VOICE - 20)}


def spoken(opening):
    """Deviation in the speech of an opening [frames] at 25 a second."""
    return max(float(np.std(opening[: int(SPEECH * FPS)])), 1e-9)


def figures(opening, names):
    """Deviation in each sound over that in the speech; `all` is of all of them together."""
    most = spoken(opening)
    first = lambda k: int(round((SPEECH + k * STILL + LEFT) * FPS))
    last = lambda k: int(round((SPEECH + (k + 1) * STILL) * FPS))
    parts = {name: opening[first(k) : last(k)] for k, name in enumerate(names)}
    return {name: float(np.std(part)) / most for name, part in parts.items()} | {"all": float(np.std(np.concatenate(list(parts.values())))) / most}


def table(rows):
    heads = [k for k in rows[0] if k != "video"]
    lines = [f"{'video':24} " + " ".join(f"{h:>8}" for h in heads)]
    return "\n".join([*lines, *(f"{r['video'][:24]:24} " + " ".join(f"{r[h]:8.3f}" for h in heads) for r in rows)])


def run(args):
    args.out.mkdir(parents=True, exist_ok=True)
    mouths, render = Mouths(args.mouth or args.data.parent / "tools/mouth.py", args.out / "mouths"), Renderer(args)
    found = sorted((args.data / "speech").glob("*.flac"))
    if len(found) < 2:
        raise SystemExit(f"{args.data}/speech: holds fewer than two voices; --data names the folder of the clips")
    whole = {path: np.asarray(sound(path), np.float32) for path in [args.speech or args.data / "speech/libri_sample_en.flac", *found[::4]]}
    said = whole.pop(next(iter(whole)))[: int(SPEECH * RATE)]
    if len(said) < SPEECH * RATE:
        raise SystemExit(f"the speech is shorter than {SPEECH} s; --speech FILE names another")
    still = sounds(list(whole.values()))
    heard = write(args.out / "rest.wav", np.clip(np.concatenate([level(said, VOICE), *still.values()]), -1, 1) * 32767)
    rows = []
    for video in args.videos:
        opening = mouths(render(video, heard, f"{video.stem}--rest.mp4"))
        rows.append({"video": video.stem} | figures(opening, still) | {"own": float(np.std(mouths(video)) / spoken(opening))})
    (args.out / "rest.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
