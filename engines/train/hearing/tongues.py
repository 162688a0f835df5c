#!/usr/bin/env python3
"""Voices of espeak-ng in many languages, whispering and deep and high ones among them, with the times of their phones.

    python -m hearing.tongues --cache CACHE --count N        writes CACHE/motion/many.npz; needs libespeak-ng (apt install libespeak-ng1)

The opening follows from the phones as motion/voices.py says: lips shut in m, b and p.
"""

import argparse
import ctypes
import json
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from hearing.mel import RATE
from motion.voices import TRACK, track

WORDS = {
    "en": "people maybe remember problem paper bubble company summer family evening voice problem open window apple purple member humble vivid moment bring back simple better",
    "de": "Baum Problem Fenster Apfel Mutter Vater Bruder immer bleiben wieder sprechen Wasser Morgen Abend Arbeit vielleicht bitte Blume Papier Familie Sommer laufen lieben",
    "fr": "bonjour maman papa beaucoup problème famille homme femme petit vivre parler encore demain semaine pomme robe fenêtre vouloir bientôt ombre simple propre novembre",
    "es": "bueno problema familia ventana padre madre pequeño hombre siempre palabra pueblo tiempo nombre blanco vivir trabajo mesa primero comprar beber abrir noviembre",
    "it": "buongiorno problema famiglia finestra bambino mamma padre tempo sempre parola piccolo bello vivere lavoro prima comprare bere aprire novembre settimana ombra",
    "pt": "bom problema família janela menino mãe pai tempo sempre palavra pequeno belo viver trabalho primeiro comprar beber abrir novembro semana sombra também",
    "nl": "boom probleem familie venster moeder vader broer altijd blijven spreken water morgen avond werk misschien bloem papier zomer lopen leven beginnen",
    "pl": "problem rodzina okno matka ojciec brat zawsze mówić woda rano wieczór praca może kwiat papier lato biegać żyć zaczynać dobry pierwszy zobaczyć",
    "ru": "проблема семья окно мама папа брат всегда говорить вода утро вечер работа может цветок бумага лето бежать жить первый пример выбор помнить",
    "tr": "problem aile pencere anne baba kardeş her zaman konuşmak su sabah akşam belki çiçek kağıt yaz yaşamak başlamak büyük bir güzel beyaz bebek",
    "hu": "probléma család ablak anya apa testvér mindig beszél víz reggel este munka virág papír nyár fut él kezd jó első ember beszélni barát",
    "fi": "ongelma perhe ikkuna äiti isä veli aina puhua vesi aamu ilta työ ehkä kukka paperi kesä juosta elää hyvä ensimmäinen ihminen lumi lapsi",
    "sv": "problem familj fönster mamma pappa bror alltid prata vatten morgon kväll arbete kanske blomma papper sommar springa leva börja bra första barn",
    "el": "πρόβλημα οικογένεια παράθυρο μητέρα πατέρας πάντα μιλάω νερό πρωί βράδυ δουλειά ίσως λουλούδι χαρτί καλοκαίρι ζω αρχίζω πρώτος άνθρωπος βιβλίο",
    "ar": "مشكلة بيت باب كتاب ماء صباح مساء عمل ربما زهرة ورق صيف كبير صغير أم أب كلام مدينة حبيب بلد",
    "hi": "समस्या परिवार माता पिता भाई हमेशा बोलना पानी सुबह शाम काम फूल कागज बड़ा पहला आदमी किताब बाबा मामा पापा",
    "id": "masalah keluarga jendela ibu bapak selalu bicara air pagi sore pekerjaan mungkin bunga kertas besar pertama orang buku baru membeli minum",
    "vi": "vấn đề gia đình cửa sổ mẹ bố anh luôn nói nước buổi sáng buổi tối công việc bông hoa giấy mùa hè lớn người bao bây bé mưa",
    "cmn-latn-pinyin": "ma1ma5 ba4ba5 peng2you5 ming2tian1 bei3jing1 ping2guo3 bu4 pa4 piao4liang5 bing1xiang1 ma3shang4 bu4men2 fei1ji1 fang2wu1 mi3fan4 bao3mu3 mei2 ban4fa3 mian4bao1",
    "sw": "familia mama baba dirisha daima sema maji asubuhi jioni kazi labda ua karatasi kubwa kwanza mtu kitabu mpya pamoja bahari mboga",
    "ro": "problemă familie fereastră mamă tată frate mereu vorbi apă dimineață muncă poate floare hârtie vară bun primul om bine biblie pământ",
    "cs": "problém rodina okno matka otec bratr vždy mluvit voda ráno večer práce možná květ papír léto běžet žít dobrý první člověk pivo pomoc",
}
# Variants of espeak-ng's voices: men, women, one that whispers, one that croaks.
VARIANTS = ("", "+m3", "+m7", "+f2", "+f4", "+f5", "+whisper", "+croak", "+m1", "+f1")
PHONEME, LIST_END = 7, 0


class Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text", ctypes.c_int), ("length", ctypes.c_int), ("audio", ctypes.c_int),
                ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("id", ctypes.c_char * 8)]


class Speaker:
    """espeak-ng by its library: samples and phones of a sentence."""

    def __init__(self):
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        # 2: audio is returned by the call that speaks; 1: phones are events.
        self.rate = self.lib.espeak_Initialize(2, 0, None, 1)
        self.parts, self.phones = [], []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self.keep = kind(self.take)
        self.lib.espeak_SetSynthCallback(self.keep)

    def take(self, wave, count, events):
        if wave and count:
            self.parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
        k = 0
        while events[k].type != LIST_END:
            if events[k].type == PHONEME:
                self.phones.append((events[k].audio / 1000, events[k].id.decode("utf8", "ignore")))
            k += 1
        return 0

    def say(self, text, voice, speed, pitch):
        """(int16 at 16 kHz, [(phone, end in seconds)])."""
        self.parts, self.phones = [], []
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {voice}: is espeak-ng-data complete?")
        self.lib.espeak_SetParameter(1, int(speed), 0)
        self.lib.espeak_SetParameter(3, int(pitch), 0)
        data = text.encode() + b"\0"
        self.lib.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        sound = np.concatenate(self.parts) if self.parts else np.zeros(0, np.int16)
        down = np.gcd(self.rate, RATE)
        sound = resample_poly(sound.astype(np.float32), RATE // down, self.rate // down)
        ends = [t for t, _ in self.phones[1:]] + [len(sound) / RATE]
        return np.clip(sound, -32767, 32767).astype(np.int16), [(p, e) for (_, p), e in zip(self.phones, ends)]


def plain(phone):
    """A phone's name without stress and length; what is unknown and silent is a pause."""
    bare = phone.strip("'ˈˌ,:ː_|!;^~*=\"")
    return bare if bare else "pau"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=132)
    parser.add_argument("--seed", type=int, default=23)
    args = parser.parse_args()
    rng, speaker, arrays, table = np.random.default_rng(args.seed), Speaker(), {}, []
    spread = float(np.load(args.cache / "motion/basis.npz")["spread"][0])
    reach = json.loads(str(np.load(args.cache / "motion/clips.npz")["table"]))
    store = np.load(args.cache / "motion/clips.npz")
    wide = [np.quantile(store[f"gap{k}"], 0.95) / (r["scale"] * spread) for k, r in enumerate(reach) if r["kind"] in ("free", "gen", "grid_other")]
    for k in range(args.count):
        language = list(WORDS)[k % len(WORDS)]
        words = [str(w) for w in rng.choice(WORDS[language].split(), rng.integers(9, 15))]
        words[rng.integers(3, 6)] += ","
        voice = language + VARIANTS[rng.integers(len(VARIANTS))]
        sound, phones = speaker.say(" ".join(words) + ".", voice, rng.uniform(110, 190), rng.uniform(20, 80))
        if len(sound) < RATE or not phones:
            continue
        i = len(table)
        arrays[f"pcm{i}"] = sound
        arrays[f"gap{i}"] = (track([(plain(p), e) for p, e in phones], len(sound) / RATE) * float(np.median(wide)) * spread).astype(np.float32)
        table.append({"name": f"many__{voice}_{k}", "kind": "many", "val": False, "fps": TRACK, "scale": 1.0})
    np.savez(args.cache / "motion/many.npz", table=json.dumps(table), **arrays)
    print(f"{len(table)} sentences, {sum(len(arrays[f'pcm{i}']) for i in range(len(table))) / RATE:.0f} s")


if __name__ == "__main__":
    main()
