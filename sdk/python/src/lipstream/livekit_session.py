"""The avatar as agents of livekit-agents begin one:

    avatar = AvatarSession(server="http://127.0.0.1:8080", avatar="anna")
    await avatar.start(agent_session, room=ctx.room)
    await agent_session.start(agent, room=ctx.room)

It joins the agent's room as a participant of its own, on the agent's behalf, and the agent's sound goes to it from then on.
"""

from __future__ import annotations

import os
import uuid

from livekit import api, rtc
from livekit.agents import AgentSession, get_job_context, voice
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF
from livekit.agents.voice.avatar import DataStreamAudioOutput

from .client import Lipstream
from .livekit import Avatar
from .session import Session


class AvatarSession(voice.avatar.AvatarSession):
    """See the module. It begins a session of its own and ends it, or uses one that is there: ``session="demo"``."""

    def __init__(
        self,
        *,
        server: str = "http://127.0.0.1:8080",
        key: str | None = None,
        avatar: str = "demo",
        session: str | None = None,
        identity: str = "lipstream-avatar",
        name: str = "Lipstream",
    ) -> None:
        super().__init__()
        self._server = Lipstream(server, key=key)
        self._shows = avatar
        self._own = session is None
        self._id = session or f"livekit-{uuid.uuid4().hex[:12]}"
        self._identity = identity
        self._name = name
        self._session: Session | None = None
        self._joined: rtc.Room | None = None
        self._avatar: Avatar | None = None

    @property
    def avatar_identity(self) -> str:
        return self._identity

    @property
    def provider(self) -> str:
        return "lipstream"

    @property
    def session(self) -> Session:
        """Its session: for a viewer beside the room, its state, its clips."""
        return self._session or self._server.session(self._id)

    async def start(
        self,
        agent_session: AgentSession,
        room: rtc.Room,
        *,
        livekit_url: str | None = None,
        livekit_api_key: str | None = None,
        livekit_api_secret: str | None = None,
    ) -> None:
        """Joins ``room``, with ``LIVEKIT_URL``, ``LIVEKIT_API_KEY`` and ``LIVEKIT_API_SECRET`` of the environment where nothing is given."""
        url = _given("livekit_url", livekit_url)
        key = _given("livekit_api_key", livekit_api_key)
        secret = _given("livekit_api_secret", livekit_api_secret)
        job = get_job_context(required=False)
        agent = job.local_participant_identity if job else room.local_participant.identity
        await super().start(agent_session, room)
        token = (
            api.AccessToken(key, secret)
            .with_identity(self._identity)
            .with_name(self._name)
            .with_kind("agent")
            .with_grants(api.VideoGrants(room_join=True, room=room.name or (job.job.room.name if job else "")))
            # The agent's own tracks and transcripts are the avatar's.
            .with_attributes({ATTRIBUTE_PUBLISH_ON_BEHALF: agent})
        )
        try:
            if self._own:
                self._session = await self._server.create_session(self._id, avatar=self._shows)
            self._joined = rtc.Room()
            await self._joined.connect(url, token.to_jwt())
            self._avatar = Avatar(self._joined, self.session, agent=agent)
            await self._avatar.start()
        except BaseException:
            await self.aclose()
            raise
        agent_session.output.audio = DataStreamAudioOutput(
            room,
            destination_identity=self._identity,
            wait_remote_track=rtc.TrackKind.KIND_VIDEO,
            wait_playback_start=True,
        )

    async def aclose(self) -> None:
        avatar, joined, session = self._avatar, self._joined, self._session
        self._avatar = self._joined = self._session = None
        try:
            if avatar:
                await avatar.aclose()
            if joined:
                await joined.disconnect()
            if session:
                await session.delete()
        finally:
            await super().aclose()
            await self._server.aclose()


def _given(name: str, value: str | None) -> str:
    found = value or os.environ.get(name.upper())
    if not found:
        raise ValueError(f"no {name}: give it, or set {name.upper()}")
    return found
