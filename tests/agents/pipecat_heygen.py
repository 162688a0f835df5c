"""pipecat's own client of LiveAvatar against a Lipstream server: only the address is another.

    pipecat_heygen.py http://HOST:PORT KEY

It begins a session, speaks, is told of it, interrupts, and ends the session.
"""

import asyncio
import json
import math
import struct
import sys
import time
import urllib.error
import urllib.request
from unittest.mock import Mock

import aiohttp
from pipecat.clocks.system_clock import SystemClock
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.heygen.api_liveavatar import LiveAvatarApi, LiveAvatarNewSessionRequest
from pipecat.services.heygen.client import HeyGenCallbacks, HeyGenClient, ServiceType
from pipecat.transports.base_transport import TransportParams
from pipecat.utils.asyncio.task_manager import TaskManager

RATE = 24000
PATIENCE = 60


class Client(HeyGenClient):
    """Keeps what the server told; pipecat's client only writes it to its log."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.told = asyncio.Queue()

    async def _handle_ws_server_event(self, event):
        await super()._handle_ws_server_event(event)
        self.told.put_nowait((time.monotonic(), event))

    async def until(self, wanted):
        while True:
            at, event = await asyncio.wait_for(self.told.get(), PATIENCE)
            assert event["type"] != "error", event
            if event["type"] == wanted:
                return at, event


def tone(seconds):
    count = int(seconds * RATE)
    return struct.pack(f"<{count}h", *(int(12000 * math.sin(n * 0.06)) for n in range(count)))


def session_exists(url, key, session):
    request = urllib.request.Request(f"{url}/api/v1/sessions/{session}", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["id"] == session
    except urllib.error.HTTPError as refusal:
        assert refusal.code == 404, refusal
        return False


async def nothing(*_):
    pass


async def main(url, key):
    LiveAvatarApi.BASE_URL = f"{url}/api/v1/liveavatar"
    async with aiohttp.ClientSession() as http:
        client = Client(
            api_key=key,
            session=http,
            params=TransportParams(audio_out_enabled=True, audio_out_sample_rate=RATE),
            session_request=LiveAvatarNewSessionRequest(avatar_id="demo"),
            service_type=ServiceType.LIVE_AVATAR,
            callbacks=HeyGenCallbacks(
                on_connected=nothing, on_participant_connected=nothing, on_participant_disconnected=nothing
            ),
        )
        await client.setup(
            FrameProcessorSetup(clock=SystemClock(), task_manager=TaskManager(), pipeline_worker=Mock())
        )
        session = client._heyGen_session.session_id
        assert await asyncio.to_thread(session_exists, url, key, session)
        while (await client.until("session.state_updated"))[1]["state"] != "connected":
            pass

        for seconds in (0.4, 1.0, 0.6):
            await client.agent_speak(tone(seconds), "answer-1")
        await client.agent_speak_end("answer-1")
        began, started = await client.until("agent.speak_started")
        ended_at, ended = await client.until("agent.speak_ended")
        assert started["event_id"] == ended["event_id"] == "answer-1"
        assert abs(ended["spoken_ms"] - 2000) < 1, ended
        print(f"pipecat: 2 s of speech were shown in {ended_at - began:.2f} s")

        for _ in range(5):
            await client.agent_speak(tone(1.0), "answer-2")
        await client.until("agent.speak_started")
        asked = time.monotonic()
        await client.interrupt("answer-2")
        _, cut = await client.until("agent.speak_interrupted")
        assert cut["event_id"] == "answer-2" and cut["spoken_ms"] < 5000, cut
        at, through = await client.until("agent.interrupted")
        assert through["event_id"] == "answer-2"
        print(f"pipecat: at rest {through['ms']:.0f} ms after the interruption, told after {(at - asked) * 1e3:.0f} ms")

        await client.start_agent_listening()
        _, state = await client.until("agent.state_updated")
        while state["new_state"] != "listening":
            _, state = await client.until("agent.state_updated")
        await client.stop()
        assert not await asyncio.to_thread(session_exists, url, key, session), "stopping ends the session"


asyncio.run(main(*sys.argv[1:]))
