#!/usr/bin/env python3
"""Writes the SHA-256 of each model file into the engine.toml beside it.

    seal.py ../models/compact ../models/tracker

Run it after an export: the runtime refuses a file whose hash is not the manifest's.
"""
import hashlib
import re
import sys
from pathlib import Path


def seal(folder: Path) -> None:
    manifest = folder / "engine.toml"
    text = manifest.read_text()

    def entry(match: re.Match) -> str:
        digest = hashlib.sha256((folder / match["path"]).read_bytes()).hexdigest()
        return f'{match["head"]}sha256 = "{digest}"'

    pattern = r'(?P<head>path = "(?P<path>[^"/]+)"\n)sha256 = "[0-9a-f]*"'
    text, count = re.subn(pattern, entry, text)
    if not count:
        raise SystemExit(f"{manifest}: no file entry with a path and a sha256 line")
    manifest.write_text(text)
    print(f"{manifest}: {count} files sealed")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for name in sys.argv[1:]:
        seal(Path(name))
