// WHEP and WHIP as a page would do them. `whep(path)` and `whip(path, constraints)` give a connection with `stop()`.
(() => {
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

  async function negotiate(pc, path) {
    const began = performance.now();
    await pc.setLocalDescription(await pc.createOffer());
    const answer = await fetch(path, {
      method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp,
    });
    const text = await answer.text();
    if (answer.status !== 201) throw new Error(`${path}: ${answer.status} ${text}`);
    const location = answer.headers.get('Location');
    const etag = answer.headers.get('ETag');
    const answered = performance.now();
    const hidden = [];
    pc.addEventListener('icecandidate', (event) => {
      if (!event.candidate || !event.candidate.candidate) return;
      hidden.push(event.candidate.candidate.includes('.local'));
      fetch(location, {
        method: 'PATCH',
        headers: { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': etag },
        body: `a=${event.candidate.candidate}\r\n`,
      }).then((patched) => { pc.patched = patched.status; });
    });
    await pc.setRemoteDescription({ type: 'answer', sdp: text });
    return { pc, location, began, answered, hidden, stop: async () => {
      const gone = await fetch(location, { method: 'DELETE' });
      pc.close();
      return gone.status;
    } };
  }

  async function whep(path) {
    const pc = new RTCPeerConnection();
    pc.addTransceiver('audio', { direction: 'recvonly' });
    pc.addTransceiver('video', { direction: 'recvonly' });
    const video = document.createElement('video');
    video.autoplay = true;
    video.srcObject = new MediaStream();
    document.body.append(video);
    pc.ontrack = (event) => video.srcObject.addTrack(event.track);
    const first = new Promise((done) => video.requestVideoFrameCallback(() => done(performance.now())));
    const connection = await negotiate(pc, path);
    await video.play();
    connection.video = video;
    connection.first = (await Promise.race([first, sleep(60000)])) - connection.began;
    return connection;
  }

  async function whip(path, constraints) {
    const pc = new RTCPeerConnection();
    const stream = await navigator.mediaDevices.getUserMedia(constraints);
    for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    const connection = await negotiate(pc, path);
    for (let i = 0; i < 600 && pc.connectionState !== 'connected'; i++) await sleep(50);
    connection.state = pc.connectionState;
    return connection;
  }

  async function inbound(pc) {
    const found = {};
    for (const report of (await pc.getStats()).values()) {
      if (report.type === 'inbound-rtp') found[report.kind] = report;
      if (report.type === 'codec') found[report.id] = report.mimeType;
    }
    return found;
  }

  // Firefox reports what comes in some time after it has begun.
  async function begun(pc) {
    let found = await inbound(pc);
    for (let i = 0; i < 200 && !(found.video && found.audio); i++) {
      await sleep(50);
      found = await inbound(pc);
    }
    return found;
  }

  // What has come in so many seconds.
  async function watch(connection, seconds) {
    const a = await begun(connection.pc);
    const from = performance.now();
    const offsets = [];
    for (let i = 0; i < seconds * 5; i++) {
      await sleep(200);
      const now = await inbound(connection.pc);
      if (now.video.estimatedPlayoutTimestamp && now.audio.estimatedPlayoutTimestamp) {
        offsets.push(now.video.estimatedPlayoutTimestamp - now.audio.estimatedPlayoutTimestamp);
      }
    }
    const b = await inbound(connection.pc);
    const time = (performance.now() - from) / 1000;
    offsets.sort((x, y) => x - y);
    return {
      fps: (b.video.framesDecoded - a.video.framesDecoded) / time,
      dropped: b.video.framesDropped - a.video.framesDropped,
      lost: [b.video.packetsLost - a.video.packetsLost, b.audio.packetsLost - a.audio.packetsLost],
      packets: [b.video.packetsReceived - a.video.packetsReceived, b.audio.packetsReceived - a.audio.packetsReceived],
      freezes: b.video.freezeCount - a.video.freezeCount,
      plis: b.video.pliCount,
      codecs: [b[b.video.codecId], b[b.audio.codecId]],
      size: [b.video.frameWidth, b.video.frameHeight],
      energy: b.audio.totalAudioEnergy - a.audio.totalAudioEnergy,
      sound: b.audio.totalSamplesDuration - a.audio.totalSamplesDuration,
      concealed: (b.audio.concealedSamples - a.audio.concealedSamples) / 48000,
      videoBufferMs: 1000 * (b.video.jitterBufferDelay - a.video.jitterBufferDelay)
        / Math.max(1, b.video.jitterBufferEmittedCount - a.video.jitterBufferEmittedCount),
      audioBufferMs: 1000 * (b.audio.jitterBufferDelay - a.audio.jitterBufferDelay)
        / Math.max(1, b.audio.jitterBufferEmittedCount - a.audio.jitterBufferEmittedCount),
      avOffsetMs: offsets.length ? offsets[offsets.length >> 1] : null,
      firstFrameMs: connection.first,
      answerMs: connection.answered - connection.began,
      hidden: connection.hidden,
    };
  }

  // Two seconds with more than so many frames a second.
  async function playing(connection, fps) {
    let seen;
    for (let i = 0; i < 20; i++) {
      seen = await watch(connection, 2);
      if (seen.fps > fps) return seen;
    }
    throw new Error(`not ${fps} frames a second: ${JSON.stringify(seen)}`);
  }

  // Sound that is none of silence.
  async function heard(connection) {
    const before = (await inbound(connection.pc)).audio?.totalAudioEnergy ?? 0;
    for (let i = 0; i < 400; i++) {
      await sleep(50);
      if ((await inbound(connection.pc)).audio?.totalAudioEnergy > before) return;
    }
    throw new Error('nothing is heard');
  }

  Object.assign(window, { whep, whip, watch, playing, heard, sleep });
  return 'ready';
})()
