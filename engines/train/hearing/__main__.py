import argparse

from hearing import cache, export, measure, teach, train, tune

parser = argparse.ArgumentParser(prog="python -m hearing", formatter_class=argparse.RawDescriptionHelpFormatter)
sub = parser.add_subparsers(required=True)
for part in (cache, train, tune, teach, measure, export):
    part.arguments(sub)
args = parser.parse_args()
args.action(args)
