"""The avatar with a room that is not LiveKit's: calls go straight to the other participant. The agent's side is that of
livekit-agents where it is installed."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from support import needs_server, run, server, tone, until

from lipstream.livekit import CLEAR_BUFFER, PLAYBACK_FINISHED, PLAYBACK_STARTED, TOPIC, Avatar


class Reader:
    """The receiving end of a byte stream."""

    def __init__(self, attributes):
        self.info = SimpleNamespace(attributes=attributes, stream_id="stream")
        self.pieces = asyncio.Queue()

    def __aiter__(self):
        return self

    async def __anext__(self):
        piece = await self.pieces.get()
        if piece is None:
            raise StopAsyncIteration
        return piece


class Writer:
    def __init__(self, reader):
        self.reader = reader

    async def write(self, data):
        self.reader.pieces.put_nowait(bytes(data))

    async def aclose(self):
        self.reader.pieces.put_nowait(None)


class Participant:
    """A local participant with what both sides call of it."""

    #: PARTICIPANT_KIND_AGENT and PARTICIPANT_STATE_ACTIVE of LiveKit's protocol.
    kind, state = 4, 2

    def __init__(self, room, identity):
        self.room, self.identity, self._rpc_handlers = room, identity, {}

    def register_rpc_method(self, method, handler):
        self._rpc_handlers[method] = handler

    def unregister_rpc_method(self, method):
        self._rpc_handlers.pop(method, None)

    async def perform_rpc(self, *, destination_identity, method, payload, **_):
        other = self.room.peers[destination_identity].local_participant
        if method not in other._rpc_handlers:
            raise RuntimeError(f"{method} is not supported")
        answer = other._rpc_handlers[method](SimpleNamespace(caller_identity=self.identity, payload=payload))
        return await answer if asyncio.iscoroutine(answer) else answer

    async def stream_bytes(self, name, *, topic, destination_identities, attributes, **_):
        reader = Reader(attributes)
        self.room.peers[destination_identities[0]].handlers[topic](reader, self.identity)
        return Writer(reader)


class Room:
    def __init__(self, peers, identity):
        self.peers, self.handlers = peers, {}
        self.local_participant = Participant(self, identity)
        peers[identity] = self

    @property
    def remote_participants(self):
        return {who: room.local_participant for who, room in self.peers.items() if room is not self}

    def isconnected(self):
        return True

    def on(self, *_):
        pass

    off = on

    def register_byte_stream_handler(self, topic, handler):
        self.handlers[topic] = handler

    def unregister_byte_stream_handler(self, topic):
        self.handlers.pop(topic, None)


class Agent:
    """What an agent does on the wire, and what it is told."""

    def __init__(self, peers):
        self.participant = Room(peers, "agent").local_participant
        self.finished, self.started = [], 0
        self.participant.register_rpc_method(PLAYBACK_FINISHED, self._finished)
        self.participant.register_rpc_method(PLAYBACK_STARTED, self._started)

    def _finished(self, data):
        assert data.caller_identity == "avatar"
        self.finished.append((time.monotonic(), json.loads(data.payload)))
        return "ok"

    def _started(self, data):
        self.started += 1
        return "ok"

    async def stream(self, rate=24_000, channels=1):
        attributes = {"sample_rate": str(rate), "num_channels": str(channels)}
        return await self.participant.stream_bytes(
            "AUDIO", topic=TOPIC, destination_identities=["avatar"], attributes=attributes
        )

    async def clear(self):
        return await self.participant.perform_rpc(destination_identity="avatar", method=CLEAR_BUFFER, payload="")


@needs_server
@run
async def test_an_agent_is_told_when_its_sound_was_played_or_cleared():
    peers = {}
    agent, room = Agent(peers), Room(peers, "avatar")
    async with server() as lipstream:
        avatar = Avatar(room, lipstream.session("demo"), agent="agent", publish=False)
        await avatar.start()
        # Whole samples are put together from pieces of any size; two channels become one.
        writer = await agent.stream(rate=16_000, channels=2)
        stereo = b"".join(2 * tone(0.5, 16_000)[n : n + 2] for n in range(0, 16_000, 2))
        for at in range(0, len(stereo), 4801):
            await writer.write(stereo[at : at + 4801])
        await writer.aclose()
        await until("the end", lambda: agent.finished)
        _, told = agent.finished.pop()
        assert told["interrupted"] is False and abs(told["playback_position"] - 0.5) < 0.01, told
        assert agent.started == 1

        # Two segments wait when the buffer is cleared, one of them still open.
        first, second = await agent.stream(), None
        await first.write(tone(4))
        await first.aclose()
        await until("its beginning", lambda: agent.started == 2)
        second = await agent.stream()
        await second.write(tone(1))
        await asyncio.sleep(0.2)
        asked = time.monotonic()
        assert await agent.clear() == "ok"
        await second.write(tone(1))
        await until("both ends", lambda: len(agent.finished) == 2)
        within = agent.finished[-1][0] - asked
        print(f"told {within * 1e3:.0f} ms after the clear")
        assert within < 2.0
        for _, told in agent.finished:
            assert told["interrupted"] is True and told["playback_position"] < 4
        agent.finished.clear()

        # The next one is heard.
        third = await agent.stream()
        await third.write(tone(0.3))
        await third.aclose()
        await until("the end", lambda: agent.finished)
        assert agent.finished.pop()[1]["interrupted"] is False
        # What cannot be spoken is over too, and nobody waits for it.
        wrong = await agent.stream(rate=96_000)
        await wrong.aclose()
        empty = await agent.stream()
        await empty.aclose()
        await until("both ends", lambda: len(agent.finished) == 2)
        assert [told["interrupted"] for _, told in agent.finished] == [True, False]
        await avatar.aclose()
    assert not room.handlers and not room.local_participant._rpc_handlers


@needs_server
@run
async def test_nobody_else_speaks_or_clears():
    peers = {}
    agent, room, stranger = Agent(peers), Room(peers, "avatar"), Room(peers, "stranger")
    async with server() as lipstream:
        avatar = Avatar(room, lipstream.session("demo"), agent="agent", publish=False)
        await avatar.start()
        reader = Reader({"sample_rate": "24000", "num_channels": "1"})
        room.handlers[TOPIC](reader, "stranger")
        assert await stranger.local_participant.perform_rpc(
            destination_identity="avatar", method=CLEAR_BUFFER, payload=""
        ) == "reject"
        assert not avatar._segments and avatar._streams.empty()
        await avatar.aclose()
    assert not agent.finished


@needs_server
@run
async def test_the_output_of_livekit_agents_plays_and_clears():
    pytest.importorskip("livekit.agents")
    from livekit import rtc
    from livekit.agents.voice.avatar import DataStreamAudioOutput

    peers = {}
    agent_room, room = Room(peers, "agent"), Room(peers, "avatar")
    async with server() as lipstream:
        avatar = Avatar(room, lipstream.session("demo"), agent="agent", publish=False)
        await avatar.start()
        output = DataStreamAudioOutput(agent_room, destination_identity="avatar", wait_playback_start=True)

        async def say(seconds):
            for _ in range(int(seconds * 10)):
                await output.capture_frame(rtc.AudioFrame(tone(0.1), 24_000, 1, 2_400))
            output.flush()

        await say(0.5)
        played = await asyncio.wait_for(output.wait_for_playout(), 30)
        assert played.interrupted is False and abs(played.playback_position - 0.5) < 0.01, played
        await say(5)
        await asyncio.sleep(1.0)
        output.clear_buffer()
        asked = time.monotonic()
        played = await asyncio.wait_for(output.wait_for_playout(), 30)
        print(f"the output of livekit-agents: cleared {1e3 * (time.monotonic() - asked):.0f} ms after it asked")
        assert played.interrupted is True and 0 < played.playback_position < 5, played
        await avatar.aclose()


