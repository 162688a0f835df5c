#!/usr/bin/env python3
"""Measures lips: the figures of `lipstream eval` by other code, the sync expert on real people, the whole acceptance, and jitter.

    evaluate.py pair VIDEO [--true F] [--speech-of F] [--audio F] [--silent F] [--json]
    evaluate.py sync --data DATA [--out F.json]
    evaluate.py all --data DATA --out DIR [--only grid_other] [-- RENDER OPTIONS]
    evaluate.py languages --data DATA --video VIDEO --out DIR [--only de fr] [-- RENDER OPTIONS]
    evaluate.py rest --data DATA --video VIDEO .. --out DIR [-- RENDER OPTIONS]
    evaluate.py still VIDEO .. [--noise 0 6 15]
    evaluate.py plots --logs DIR/log.jsonl .. --out page.html

What each figure means is in docs/measure.md. Needs the built program (`--lipstream`), ffmpeg and requirements.txt.
"""

import argparse
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def program(parser):
    parser.add_argument("--lipstream", type=Path, default=ROOT / "target/release/lipstream", help="the built program")
    parser.add_argument("--expert", type=Path, default=ROOT / "engines/models/expert", help="folder of the sync expert's networks")
    parser.add_argument("--points", type=Path, help="folder to keep landmarks in, for the next time")


def data(parser):
    shared = os.environ.get("LIPSTREAM_SHARED")
    known = Path(shared) / "data" if shared else None
    parser.add_argument("--data", type=Path, default=known, required=known is None, help="folder that holds talking/val")


def tools(args):
    """(landmarks, expert) as the command line names them."""
    from quality.media import Expert, Points

    if not (args.expert / "lips.onnx").is_file():
        raise SystemExit(f"{args.expert}: no lips.onnx in this folder; --expert DIR names the sync expert's")
    return Points(args.lipstream, args.points), Expert(args.expert)


def pair(args):
    from quality import pair

    points, expert = tools(args)
    figures = pair.pair(points, expert, args.video, args.true, args.speech_of, args.audio, args.silent, args.align)
    if args.syncnet:
        from quality import syncnet

        figures |= syncnet.measure(args.syncnet, args.video, points(args.video), args.audio)
    print(json.dumps(figures, indent=2) if args.json else pair.show(figures))


def sync(args):
    from quality import sync

    sync.run(*tools(args), args.data, args.out)


def everything(args):
    from quality import people

    if args.points is None:
        args.points = args.out / "points"
    people.run(*tools(args), args)


def languages(args):
    from quality import languages

    languages.run(args)


def rest(args):
    from quality import rest

    rest.run(args)


def still(args):
    from quality import still

    still.run(tools(args)[0], args.videos, args.second, args.noise)


def plots(args):
    from quality import plots

    plots.run(args.logs, args.out, args.figures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pair", help="the figures of one video")
    one.add_argument("video", type=Path)
    one.add_argument("--true", type=Path, help="the same picture with the true mouth")
    one.add_argument("--speech-of", type=Path, help="video of whoever spoke the speech")
    one.add_argument("--audio", type=Path, help="what is heard with VIDEO, in place of its own sound")
    one.add_argument("--silent", type=Path, help="the same video made to say nothing")
    one.add_argument("--align", type=Path, help="GRID's .align of the speech: adds closures at the beginnings of its words")
    one.add_argument("--syncnet", type=Path, help="syncnet_v2.model as published: adds LSE-C and LSE-D")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=pair)
    real = commands.add_parser("sync", help="the sync expert on real clips")
    real.add_argument("--out", type=Path, help="write all figures here")
    real.set_defaults(run=sync)
    whole = commands.add_parser("all", help="render people whom no model has seen, and measure")
    whole.add_argument("--out", type=Path, required=True, help="where renders, sheets and figures go")
    whole.add_argument("--only", nargs="*", help="sets of clips")
    whole.add_argument("--mouth", type=Path, help="program that measures mouths [DATA/../tools/mouth.py]")
    whole.add_argument("more", nargs="*", help="options of `lipstream render`, after --")
    whole.set_defaults(run=everything)
    many = commands.add_parser("languages", help="closures of the lips in many languages")
    many.add_argument("--video", type=Path, required=True, help="who speaks")
    many.add_argument("--out", type=Path, required=True, help="where sounds, renders and figures go")
    many.add_argument("--only", nargs="*", help="languages, as espeak-ng names them")
    many.add_argument("--mouth", type=Path, help="program that measures mouths [DATA/../tools/mouth.py]")
    many.add_argument("more", nargs="*", help="options of `lipstream render`, after --")
    many.set_defaults(run=languages)
    quiet = commands.add_parser("rest", help="what the mouth does under sounds that are no speech")
    quiet.add_argument("--video", type=Path, nargs="+", dest="videos", required=True, help="who rests")
    quiet.add_argument("--out", type=Path, required=True, help="where sounds, renders and figures go")
    quiet.add_argument("--speech", type=Path, help="what is said before [DATA/speech/libri_sample_en.flac]")
    quiet.add_argument("--mouth", type=Path, help="program that measures mouths [DATA/../tools/mouth.py]")
    quiet.add_argument("more", nargs="*", help="options of `lipstream render`, after --")
    quiet.set_defaults(run=rest)
    calm = commands.add_parser("still", help="jitter of the mouth's place on a head that does not move")
    calm.add_argument("videos", type=Path, nargs="+")
    calm.add_argument("--second", type=float, default=1.0, help="which moment is shown")
    calm.add_argument("--noise", type=int, nargs="*", default=[0, 6, 15], help="of the camera, 8-bit codes")
    calm.set_defaults(run=still)
    page = commands.add_parser("plots", help="what training logged, as a page of plots")
    page.add_argument("--logs", type=Path, nargs="+", required=True)
    page.add_argument("--out", type=Path, required=True, help=".html, .png or .svg")
    page.add_argument("--figures", nargs="*", default=(), help="names of the figures, all by default")
    page.set_defaults(run=plots)
    for each in (one, real, whole, calm, many, quiet):
        program(each)
    for each in (real, whole, many, quiet):
        data(each)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
