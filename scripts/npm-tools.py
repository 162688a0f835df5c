#!/usr/bin/env python3
"""Fetches the programs that `sdk/js` is built with, TypeScript's compiler and esbuild, without Node: both are native.

    npm-tools.py sdk/js/package-lock.json FOLDER

They end up in FOLDER/tsc and FOLDER/esbuild. Versions and sha512 are those of the lock file. NPM_CONFIG_REGISTRY takes the place of https://registry.npmjs.org/.
"""
import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

REGISTRY = "https://registry.npmjs.org/"
PACKAGES = {"tsc": "@typescript/typescript-linux-x64", "esbuild": "@esbuild/linux-x64"}


def main():
    lock, folder = Path(sys.argv[1]), Path(sys.argv[2])
    packages = json.loads(lock.read_text())["packages"]
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/") + "/"
    for tool, name in PACKAGES.items():
        entry = packages[f"node_modules/{name}"]
        address = f"{registry}{name}/-/{name.rpartition('/')[2]}-{entry['version']}.tgz"
        with urllib.request.urlopen(address, timeout=180) as answer:
            packed = answer.read()
        found = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
        if found != entry["integrity"]:
            sys.exit(f"{address}: not what {lock} expects ({found})")
        target = folder / tool
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            for member in tar.getmembers():
                # All lies below `package/`.
                member.name = member.name.partition("/")[2]
            # What it holds is known by its hash. Debian 12's Python has no filters for archives yet.
            files = [member for member in tar.getmembers() if member.isfile() and ".." not in Path(member.name).parts]
            tar.extractall(target, files)


main()
