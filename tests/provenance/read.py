"""Prints what C2PA's library says of the manifest of a file, as JSON: read.py FILE MEDIA-TYPE."""
import sys

import c2pa

with open(sys.argv[1], "rb") as file:
    print(c2pa.Reader(sys.argv[2], file).json())
