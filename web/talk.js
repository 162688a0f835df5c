// Hold to talk: the microphone through the session's WebSocket.

import { socket } from "./api.js";
import { microphone } from "./live.js";

const RATE = 48000;

export class Talk {
  constructor(session, told) {
    this.told = told;
    this.socket = socket(`/api/v1/sessions/${encodeURIComponent(session)}/audio`);
    this.socket.binaryType = "arraybuffer";
    this.ready = new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = () => reject(new Error("the WebSocket of the session does not open"));
    });
    this.ready.catch(() => {});
    this.socket.onmessage = (event) => typeof event.data === "string" && this.told(JSON.parse(event.data));
    this.talking = false;
  }

  get open() {
    return this.socket.readyState <= WebSocket.OPEN;
  }

  async start() {
    this.talking = true;
    if (!this.node) {
      const media = await microphone();
      this.context = new AudioContext({ sampleRate: RATE });
      await this.context.audioWorklet.addModule("/web/capture.js");
      this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
      this.context.createMediaStreamSource(media).connect(this.node);
      this.media = media;
      this.node.port.onmessage = (event) => this.spoken && this.socket.send(event.data);
    }
    await this.ready;
    // The button may be up again by now.
    if (!this.talking) return;
    this.socket.send(JSON.stringify({ type: "speak_start", rate: RATE }));
    this.spoken = true;
  }

  stop() {
    this.talking = false;
    if (this.spoken) this.socket.send(JSON.stringify({ type: "speak_end" }));
    this.spoken = false;
  }

  close() {
    this.stop();
    this.media?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.socket.close();
  }
}
