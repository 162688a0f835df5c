// A listener of Janus's video room, as its own demo does it. `listen(base)` gives a connection as `client.js` has it.
(() => {
  const ROOM = 1234;

  async function ask(url, message) {
    const body = JSON.stringify({ transaction: String(Math.random()), ...message });
    const answer = await fetch(url, { method: 'POST', body });
    return answer.json();
  }

  async function open(base) {
    const session = `${base}/${(await ask(base, { janus: 'create' })).data.id}`;
    const handle = `${session}/${(await ask(session, { janus: 'attach', plugin: 'janus.plugin.videoroom' })).data.id}`;
    return { session, handle };
  }

  // The event that answers a message.
  async function request({ session, handle }, body, jsep) {
    const said = await ask(handle, { janus: 'message', body, ...(jsep ? { jsep } : {}) });
    if (said.janus === 'success') return said.plugindata.data;
    for (;;) {
      const event = await (await fetch(`${session}?maxev=1`)).json();
      if (event.plugindata?.data.error) throw new Error(event.plugindata.data.error);
      if (event.plugindata) return event;
    }
  }

  let here;

  // Who publishes in the room.
  async function participants() {
    const { participants } = await request(here, { request: 'listparticipants', room: ROOM });
    return participants.filter((one) => one.display === 'lipstream' && one.publisher);
  }

  async function listen(base) {
    here = await open(base);
    let feed;
    for (let i = 0; i < 200 && !feed; i++) {
      feed = (await participants())[0]?.id;
      await sleep(50);
    }
    const { jsep } = await request(here, { request: 'join', ptype: 'subscriber', room: ROOM, streams: [{ feed }] });
    const pc = new RTCPeerConnection();
    const video = document.getElementById('video');
    video.srcObject = new MediaStream();
    pc.ontrack = (event) => video.srcObject.addTrack(event.track);
    await pc.setRemoteDescription(jsep);
    await pc.setLocalDescription(await pc.createAnswer());
    await new Promise((done) => {
      const look = () => pc.iceGatheringState === 'complete' && done();
      pc.onicegatheringstatechange = look;
      look();
      setTimeout(done, 1000);
    });
    await request(here, { request: 'start' }, pc.localDescription.toJSON());
    await video.play();
    return { pc, video, hidden: [], began: 0, answered: 0, first: 0 };
  }

  Object.assign(window, { listen, participants });
  return 'ready';
})()
