"""The avatar as livekit-agents begins one, and streams whose end is lost: rooms, the LiveKit server and the Lipstream server are
stand-ins."""

import asyncio
from types import SimpleNamespace

import pytest
from support import run, tone, until
from test_livekit import Agent, Reader, Room

from lipstream.errors import LipstreamError
from lipstream.livekit import CLEAR_BUFFER, TOPIC, Avatar

KEY, SECRET = "devkey", "a secret of at least 32 characters"


class Speech:
    """Plays what it is given at once."""

    rate = 24_000

    def __init__(self):
        self.said, self.events = [], asyncio.Queue()

    async def open(self):
        pass

    async def start(self, utterance):
        self.said.append([utterance, 0])

    async def write(self, samples):
        self.said[-1][1] += len(samples)

    async def end(self):
        name, size = self.said[-1]
        await self.events.put({"type": "speaking", "utterance": name})
        await self.events.put({"type": "ended", "utterance": name, "spoken_ms": size / 48})

    async def close(self):
        pass

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.events.get()


class Session:
    def __init__(self, server=None, id="s"):
        self.server, self.id, self.spoken, self.deleted = server, id, Speech(), False

    def speech(self, rate):
        return self.spoken

    async def delete(self):
        self.deleted = True


@run
async def test_a_stream_whose_end_is_lost_ends_with_the_next_and_loses_nothing():
    peers, session = {}, Session()
    agent, room = Agent(peers), Room(peers, "avatar")
    avatar = Avatar(room, session, agent="agent", publish=False)
    await avatar.start()
    first = await agent.stream()
    await first.write(tone(0.2))
    await until("its sound", lambda: session.spoken.said and session.spoken.said[0][1])
    # All at once: more of the first one, which never ends, and two others, of which the second has no end either.
    await first.write(tone(0.3))
    second, third = await agent.stream(), await agent.stream()
    await second.write(tone(0.5))
    await third.write(tone(0.1))
    await third.aclose()
    await asyncio.wait_for(until("all ends", lambda: len(agent.finished) == 3), 5)
    positions = [told["playback_position"] for _, told in agent.finished]
    assert positions == pytest.approx([0.5, 0.5, 0.1], abs=1e-3)
    assert not any(told["interrupted"] for _, told in agent.finished) and agent.started == 3
    await avatar.aclose()


class Connected(Room):
    """The avatar's own room; it is refused where the token is not the server's."""

    made = []

    def __init__(self):
        self.peers, self.handlers, self.connected = {}, {}, None
        Connected.made.append(self)

    async def connect(self, url, token):
        if url == "ws://nobody":
            raise ConnectionError("nobody there")
        self.connected = (url, token)
        self.local_participant = SimpleNamespace(
            _rpc_handlers={},
            register_rpc_method=lambda name, handler: self.handlers.__setitem__(name, handler),
            unregister_rpc_method=lambda name: self.handlers.pop(name, None),
        )

    async def disconnect(self):
        self.connected = None


class Server:
    made = []

    def __init__(self, url, key=None):
        self.url, self.key, self.begun, self.closed = url, key, [], False
        Server.made.append(self)

    def session(self, id):
        return Session(self, id)

    async def create_session(self, id, **spec):
        if spec["avatar"] == "nobody":
            raise LipstreamError(422, "invalid", "avatar: there is no `nobody`")
        session = Session(self, id)
        self.begun.append((session, spec))
        return session

    async def aclose(self):
        self.closed = True


class Published:
    async def open(self):
        pass

    async def close(self):
        pass


def agent_session():
    events = SimpleNamespace(on=lambda *_: None, off=lambda *_: None, emit=lambda *_: None)
    return SimpleNamespace(output=SimpleNamespace(audio=None), **vars(events))


@pytest.fixture
def stand_ins(monkeypatch):
    pytest.importorskip("livekit.agents")
    from lipstream import livekit_session, livekit_tracks

    Connected.made, Server.made = [], []
    monkeypatch.setattr(livekit_session.rtc, "Room", Connected)
    monkeypatch.setattr(livekit_session, "Lipstream", Server)
    monkeypatch.setattr(livekit_tracks, "Publisher", lambda room, session: Published())
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return livekit_session


def agents_room():
    peers = {}
    room = Room(peers, "agent-7")
    room.name = "support-42"
    return room


def test_an_agent_begins_it_as_other_avatars(stand_ins, monkeypatch):
    from livekit.api import TokenVerifier

    monkeypatch.setenv("LIVEKIT_URL", "ws://lk:7880")
    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)

    @run
    async def begin():
        avatar = stand_ins.AvatarSession(server="http://faces:8080", key="k", avatar="anna")
        agent = agent_session()
        await avatar.start(agent, room=agents_room())
        [joined], [server] = Connected.made, Server.made
        url, token = joined.connected
        claims = TokenVerifier(KEY, SECRET).verify(token)
        assert (url, claims.identity, claims.kind) == ("ws://lk:7880", "lipstream-avatar", "agent")
        assert claims.video.room_join and claims.video.room == "support-42"
        assert claims.attributes == {"lk.publish_on_behalf": "agent-7"}
        [(session, spec)] = server.begun
        assert (server.url, server.key, spec) == ("http://faces:8080", "k", {"avatar": "anna"})
        assert session.id.startswith("livekit-") and avatar.session is session
        assert {TOPIC, CLEAR_BUFFER} <= set(joined.handlers)
        output = agent.output.audio
        assert output._destination_identity == avatar.avatar_identity and output._wait_playback_start
        assert avatar.provider == "lipstream"
        await avatar.aclose()
        assert joined.connected is None and session.deleted and server.closed and not joined.handlers

    begin()


def test_what_is_missing_or_refused_is_named_and_nothing_is_left(stand_ins):
    @run
    async def begin():
        given = {"livekit_url": "ws://lk", "livekit_api_key": KEY, "livekit_api_secret": SECRET}
        for name in given:
            avatar = stand_ins.AvatarSession()
            with pytest.raises(ValueError, match=name.upper()):
                await avatar.start(agent_session(), room=agents_room(), **{**given, name: None})
        agent = agent_session()
        with pytest.raises(LipstreamError, match="nobody"):
            await stand_ins.AvatarSession(avatar="nobody").start(agent, room=agents_room(), **given)
        assert Server.made[-1].closed and agent.output.audio is None
        with pytest.raises(ConnectionError):
            await stand_ins.AvatarSession().start(agent, room=agents_room(), **{**given, "livekit_url": "ws://nobody"})
        [(session, _)] = Server.made[-1].begun
        assert session.deleted and Server.made[-1].closed, "its session does not stay"
        # A session that was there before stays.
        avatar = stand_ins.AvatarSession(session="demo")
        await avatar.start(agent, room=agents_room(), **given)
        assert avatar.session.id == "demo" and not Server.made[-1].begun
        await avatar.aclose()

    begin()
