import argparse

from hearing import cache, export, four, measure, teach, train, tune, whole, wholeexport, wholemeasure, windowed

parser = argparse.ArgumentParser(prog="python -m hearing", formatter_class=argparse.RawDescriptionHelpFormatter)
sub = parser.add_subparsers(required=True)
for part in (cache, train, tune, teach, measure, export, four, windowed, whole, wholemeasure, wholeexport):
    part.arguments(sub)
args = parser.parse_args()
args.action(args)
