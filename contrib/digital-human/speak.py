"""Speaks the lines of the standard input with a session's avatar: speak.py SESSION [ws://HOST:PORT] [KEY]

Needs `pip install websockets`, and espeak-ng for the voice; put your own TTS into `synthesise`.
"""

import asyncio
import json
import subprocess
import sys

import websockets

# Sound is sent in pieces of 100 ms, as a TTS that streams would.
PIECE = 0.1


def synthesise(text):
    """Rate and 16-bit mono samples of a sentence; espeak-ng has 22.05 kHz, ffmpeg makes 24 kHz of it."""
    wav = subprocess.run(["espeak-ng", "--stdout", text], check=True, capture_output=True).stdout
    convert = ["ffmpeg", "-v", "error", "-f", "wav", "-i", "-", "-ac", "1", "-ar", "24000", "-f", "s16le", "-"]
    return 24000, subprocess.run(convert, input=wav, check=True, capture_output=True).stdout


async def speak(session, server, key):
    headers = [("Authorization", f"Bearer {key}")] if key else []
    async with websockets.connect(f"{server}/api/v1/sessions/{session}/audio", additional_headers=headers) as socket:
        for line in filter(None, map(str.strip, sys.stdin)):
            rate, samples = synthesise(line)
            await socket.send(json.dumps({"type": "speak_start", "rate": rate}))
            step = int(rate * PIECE) * 2
            for at in range(0, len(samples), step):
                await socket.send(samples[at:at + step])
            await socket.send(json.dumps({"type": "speak_end"}))
            while (event := json.loads(await socket.recv()))["type"] != "idle":
                print(event)


if len(sys.argv) < 2:
    sys.exit(__doc__)
session, server, key = (sys.argv[1:] + [None, None])[:3]
asyncio.run(speak(session, server or "ws://127.0.0.1:8080", key))
