import { LipstreamAvatar } from "./element.js";

export type * as Api from "./api.js";
export { LipstreamAvatar, type AvatarEvents } from "./element.js";
export { LipstreamError } from "./errors.js";
export { Lipstream, type Access, type Request } from "./server.js";
export { Session, type Voice } from "./session.js";
export { RATE, Speech, type SpeechEvent, type Utterance } from "./speech.js";
export { Microphone, Player, type PlayerState } from "./webrtc.js";

declare global {
  interface HTMLElementTagNameMap {
    "lipstream-avatar": LipstreamAvatar;
  }
}

// Two copies of this file in one page share the first one's element; Node has none.
if (globalThis.customElements && !customElements.get("lipstream-avatar")) customElements.define("lipstream-avatar", LipstreamAvatar);
