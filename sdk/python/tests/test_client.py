"""The client with a server."""

import asyncio
import io
import socket

import httpx
import pytest

from lipstream import Closed, Lipstream, LipstreamError
from lipstream.render import Render
from support import ROOT, URL, needs_server, run, server, tone


def test_what_is_no_address_is_refused():
    for url in ("127.0.0.1:8080", "ftp://host", ""):
        with pytest.raises(ValueError):
            Lipstream(url)


@run
async def test_a_server_that_is_away_is_an_error_like_others():
    # Nobody listens on a port that is bound and no more.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with Lipstream(f"http://127.0.0.1:{bound.getsockname()[1]}") as away:
            for asked in (away.sessions(), away.session("demo").interrupt(), away.session("demo").speech().open()):
                with pytest.raises(LipstreamError, match="does not answer") as refused:
                    await asked
                assert (refused.value.status, refused.value.kind) == (0, "unreachable")


@run
async def test_a_download_that_breaks_off_leaves_no_file(tmp_path):
    class Broken:
        async def request(self, *_):
            return httpx.Response(200, json={"state": "done"})

        async def download(self, _):
            yield b"half"
            raise LipstreamError(0, "unreachable", "gone")

    video = tmp_path / "out.mp4"
    video.write_bytes(b"before")
    with pytest.raises(LipstreamError, match="gone"):
        await Render(Broken(), "1").save(video)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


@needs_server
@run
async def test_a_session_is_made_looked_at_changed_and_ended():
    async with server() as lipstream:
        session = await lipstream.create_session("sdk", avatar="demo", params={"motion-gain": "1.1"})
        status = await session.status()
        assert (status["phase"], status["params"]["motion-gain"]) == ("idle", "1.1")
        assert (await session.change(params={"motion-gain": "0.9"}))["params"]["motion-gain"] == "0.9"
        assert "sdk" in [one["id"] for one in await lipstream.sessions()]
        with pytest.raises(LipstreamError) as twice:
            await lipstream.create_session("sdk")
        assert (twice.value.status, twice.value.kind) == (409, "conflict") and "`sdk`" in str(twice.value)
        await session.delete()
        with pytest.raises(LipstreamError) as gone:
            await session.status()
        assert (gone.value.status, gone.value.kind) == (404, "unknown")
        with pytest.raises(LipstreamError, match="sdk"):
            await session.speech().open()
        assert "demo" in [avatar["name"] for avatar in await lipstream.avatars()]
        assert (await lipstream.capacity())["sessions"] >= 1


@needs_server
@run
async def test_speech_is_spoken_whole_and_as_it_comes_and_is_told_of():
    async def pieces(sound):
        for at in range(0, len(sound), 4801):
            await asyncio.sleep(0)
            yield sound[at : at + 4801]

    async with server() as lipstream:
        session = lipstream.session("demo")
        async with session.speech() as speech:
            body = await session.speak(pieces(tone(0.5)), "audio/L16;rate=24000;channels=1", utterance="body")
            assert body == {"utterance": "body", "seconds": pytest.approx(0.5, abs=0.01)}
            await speech.say(tone(0.5), "whole")
            await speech.say([tone(0.25), tone(0.25)], "list")
            await speech.say(pieces(tone(0.5)), "stream")
            ended = {}
            async for event in speech:
                assert event["type"] != "error", event
                if event["type"] == "ended":
                    ended[event["utterance"]] = event["spoken_ms"]
                if "stream" in ended:
                    break
            assert list(ended) == ["body", "whole", "list", "stream"]
            assert all(abs(ms - 500) < 10 for ms in ended.values()), ended


@needs_server
@run
async def test_an_interruption_cuts_and_returns_at_rest():
    async with server() as lipstream:
        session = lipstream.session("demo")
        async with session.speech() as speech:
            await speech.start("long")
            await speech.write(tone(5))
            async for event in speech:
                if event["type"] == "speaking":
                    break
            ms = await session.interrupt()
            print(f"at rest after {ms:.0f} ms")
            async for event in speech:
                if event["type"] == "ended":
                    break
            assert (event["utterance"], event["cut"]) == ("long", "interrupted")
            assert event["spoken_ms"] < 5000
        with pytest.raises(Closed):
            await speech.write(b"")
            await speech.start()


@needs_server
@run
async def test_what_the_server_says_of_wrong_speech_is_told():
    async with server() as lipstream:
        session = lipstream.session("demo")
        with pytest.raises(LipstreamError) as refusal:
            await session.speak(b"no sound at all", "audio/wav")
        assert refusal.value.status in (415, 422) and refusal.value.detail
        with pytest.raises(ValueError, match="48000"):
            session.speech(96_000)
        async with session.speech() as speech:
            await speech.end()
            async for event in speech:
                if event["type"] == "error":
                    break
            assert "speak_start" in event["message"]
    async with Lipstream(URL, key="another-key-than-the-right-one") as stranger:
        with pytest.raises(LipstreamError) as refused:
            await stranger.sessions()
        assert refused.value.status == 401
        with pytest.raises(LipstreamError) as refused:
            await stranger.session("demo").speech().open()
        assert refused.value.status == 401


@needs_server
@run
async def test_events_of_others_are_heard():
    async with server() as lipstream:
        session = lipstream.session("demo")
        told = session.events()
        first = asyncio.ensure_future(anext(told))
        while not first.done():
            await session.speak(tone(0.1), "audio/L16;rate=24000;channels=1", utterance="heard")
            await asyncio.wait([first], timeout=1)
        assert first.result()["utterance"] == "heard"
        await told.aclose()


@needs_server
@run
async def test_a_render_tells_how_far_it_is_and_is_saved():
    import tempfile

    async with server() as lipstream:
        with pytest.raises(ValueError):
            await lipstream.render(io.BytesIO(b""))
        broken = await lipstream.render(io.BytesIO(b"no sound"), avatar="demo")
        with pytest.raises(LipstreamError, match="audio: "):
            await broken.save("/dev/null", every=0.1)
        render = await lipstream.render(ROOT / "demo/speech.flac", avatar="demo", options={"container": "mkv"})
        async for status in render.progress(every=0.1):
            if status["progress"] > 0:
                break
        assert status["state"] == "running"
        await render.delete()
        wav = b"RIFF" + (36 + 24_000).to_bytes(4, "little") + b"WAVEfmt " + bytes.fromhex(
            "10000000" "01000100" "c05d0000" "80bb0000" "02001000"
        ) + b"data" + (24_000).to_bytes(4, "little") + tone(0.5)
        render = await lipstream.render(io.BytesIO(wav), avatar="demo")
        with tempfile.TemporaryDirectory() as folder:
            path = await render.save(f"{folder}/out.mp4", every=0.1)
            assert path.read_bytes()[4:8] == b"ftyp"
        status = await render.status()
        assert (status["state"], status["frames"]) == ("done", 13)
        await render.delete()
