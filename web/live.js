// The live picture by WHEP and the microphone by WHIP.

import { request } from "./api.js";

const GATHERING = 800;

export function microphone() {
  // Outside of secure contexts there is no such interface.
  if (!navigator.mediaDevices) throw new Error("browsers give the microphone to pages by HTTPS or from this machine only");
  return navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } });
}

// Candidates come within a moment on a local network; what comes later is not needed there.
function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHERING);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState === "complete") {
        clearTimeout(timer);
        resolve();
      }
    });
  });
}

// Why media does not come through though the server has answered.
export const UNREACHED = "The server answered, but no media came through: no UDP packet gets from this browser to its media port. "
  + "On the server's own machine check that no VPN or privacy setting stops WebRTC here; from another machine the server must listen "
  + "on an address that this one reaches (server.bind, webrtc.public_ips) with its UDP ports open (webrtc.udp_port_min and _max). See docs/service.md.";

async function connect(peer, path) {
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  const response = await request("POST", path, {
    body: peer.localDescription.sdp,
    headers: { "Content-Type": "application/sdp" },
    raw: true,
  });
  const location = response.headers.get("Location");
  await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  return location;
}

class Connection {
  constructor(iceServers, changed) {
    this.peer = new RTCPeerConnection({ iceServers });
    this.changed = changed;
    this.resource = null;
    this.closed = false;
    this.peer.addEventListener("connectionstatechange", () => this.changed(this.peer.connectionState));
  }

  async close() {
    if (this.closed) return;
    this.closed = true;
    // The server notices by itself where this fails.
    if (this.resource) await request("DELETE", this.resource, { raw: true, keepalive: true }).catch(() => {});
    this.peer.close();
  }
}

export class Player extends Connection {
  constructor(iceServers, changed) {
    super(iceServers, changed);
    this.stream = new MediaStream();
    this.peer.addEventListener("track", (event) => this.stream.addTrack(event.track));
    this.last = null;
  }

  async open(session) {
    this.peer.addTransceiver("video", { direction: "recvonly" });
    this.peer.addTransceiver("audio", { direction: "recvonly" });
    this.resource = await connect(this.peer, `/whep/${encodeURIComponent(session)}`);
    if (this.closed && this.resource) await request("DELETE", this.resource, { raw: true }).catch(() => {});
  }

  // What arrives here, once a second.
  async received() {
    const report = await this.peer.getStats();
    const now = {};
    for (const stats of report.values()) {
      if (stats.type === "inbound-rtp" && stats.kind === "video") {
        Object.assign(now, {
          at: stats.timestamp, frames: stats.framesDecoded ?? 0, bytes: stats.bytesReceived, lost: stats.packetsLost,
          width: stats.frameWidth, height: stats.frameHeight, codec: report.get(stats.codecId)?.mimeType,
        });
      }
      if (stats.type === "candidate-pair" && stats.nominated) now.rtt = stats.currentRoundTripTime;
    }
    const { last } = this;
    this.last = now;
    if (!last?.at || !now.at || now.at <= last.at) return null;
    const seconds = (now.at - last.at) / 1000;
    return { ...now, fps: (now.frames - last.frames) / seconds, rate: (now.bytes - last.bytes) * 8 / seconds };
  }
}

export class Publisher extends Connection {
  // Sends the microphone as the voice of a session.
  async open(session) {
    this.media = await microphone();
    for (const track of this.media.getTracks()) this.peer.addTransceiver(track, { direction: "sendonly", streams: [this.media] });
    try {
      this.resource = await connect(this.peer, `/whip/${encodeURIComponent(session)}/voice`);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  async close() {
    this.media?.getTracks().forEach((track) => track.stop());
    await super.close();
  }
}
