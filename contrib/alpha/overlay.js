// A session with `alpha=stack` over nothing: the page for a browser source of OBS.
// /web/overlay?session=ID, with #token=TOKEN or #key=KEY where the server has keys.

import { Lipstream, Player } from "/web/lipstream.js";
import { Stacked } from "/web/stacked.js";

const id = new URLSearchParams(location.search).get("session") ?? "demo";
// After the #, which no server sees.
const secrets = new URLSearchParams(location.hash.slice(1));
const access = Object.fromEntries(["token", "key"].filter((name) => secrets.has(name)).map((name) => [name, secrets.get(name)]));

const [canvas, note] = ["canvas", "output"].map((name) => document.querySelector(name));
const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true });
const player = new Player(new Lipstream(location.origin, access).session(id), (state, error) => {
  note.value = error?.message ?? "";
});
video.srcObject = player.stream;
// Where the page may play no sound, the picture goes on without.
video.play().catch(() => {
  video.muted = true;
  return video.play();
}).catch((error) => {
  note.value = error.message;
});
try {
  window.stacked = new Stacked(video, canvas);
} catch (error) {
  note.value = error.message;
}
addEventListener("pagehide", () => player.close());
