"""python -m occlusion pack|train|eval|export; ../README.md has the commands in their order."""

import argparse
from pathlib import Path

from common.runs import data_argument

from . import data, train

TEMPLATE = Path(__file__).resolve().parents[2] / "models" / "tracker" / "template.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    sub = parser.add_subparsers(required=True)
    for name, action in (("pack", data.pack), ("train", train.train), ("eval", train.run_eval), ("export", train.run_export)):
        one = sub.add_parser(name)
        one.set_defaults(action=action)
        data_argument(one)
        if name == "pack":
            one.add_argument("--template", type=Path, default=TEMPLATE, help="the aligned crop's anchors")
        if name in ("train", "export"):
            one.add_argument("--run", type=Path, required=True, help="folder of the checkpoint and the log")
        if name in ("eval", "export"):
            one.add_argument("--model", type=Path, required=True)
        if name == "train":
            one.add_argument("--init", type=Path, help="begin with the weights of this checkpoint")
            for option, default in (("minutes", 65.0), ("batch", 32), ("lr", 2e-3), ("every", 200), ("seed", 3), ("threads", 1)):
                one.add_argument(f"--{option}", type=type(default), default=default)
    args = parser.parse_args()
    args.action(args)


main()
