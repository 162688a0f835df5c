"""Viewers by WHEP in a real browser: Chromium without a window opens some, and says what each has decoded."""

import http.server
import json
import shutil
import subprocess
import tempfile
import threading

PAGE = b"""<!doctype html><script>
const query = new URLSearchParams(location.search);
const wait = seconds => new Promise(done => setTimeout(done, seconds * 1000));
async function view(number, session) {
  const began = performance.now();
  const peer = new RTCPeerConnection();
  const out = { session };
  try {
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    peer.ontrack = event => {
      if (event.track.kind !== "video") return;
      const video = document.createElement("video");
      video.muted = true;
      video.srcObject = new MediaStream([event.track]);
      video.requestVideoFrameCallback(() => { out.first_ms = performance.now() - began; });
      video.play();
    };
    await peer.setLocalDescription();
    const whep = query.get("server") + "/whep/" + session;
    const answer = await fetch(whep, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp });
    if (!answer.ok) return { ...out, error: answer.status + " " + await answer.text() };
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    await wait(+query.get("seconds"));
    for (const report of (await peer.getStats()).values()) {
      if (report.type !== "inbound-rtp") continue;
      const { framesDecoded, framesPerSecond, packetsReceived, packetsLost, totalAudioEnergy, freezeCount } = report;
      out[report.kind] = { framesDecoded, framesPerSecond, packetsReceived, packetsLost, totalAudioEnergy, freezeCount };
    }
    // Every second one goes without a word.
    if (number % 2 === 0) await fetch(new URL(answer.headers.get("Location"), whep), { method: "DELETE" });
  } catch (error) {
    out.error = String(error);
  }
  peer.close();
  return out;
}
(async () => {
  const sessions = query.get("sessions").split(",");
  const all = [];
  for (let n = 0; n < +query.get("count"); n++) { all.push(view(n, sessions[n % sessions.length])); await wait(0.2); }
  await fetch("/done", { method: "POST", body: JSON.stringify(await Promise.all(all)) });
})();
</script>"""


def view(server, sessions, count=4, seconds=5):
    """What each of `count` viewers saw in `seconds`; None where there is no Chromium. The server must allow origins."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        return None
    done, results = threading.Event(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE)

        def do_POST(self):
            results.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_):
            pass

    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    url = (f"http://127.0.0.1:{page.server_port}/?server={server.http}&sessions={','.join(sessions)}"
           f"&count={count}&seconds={seconds}")
    with tempfile.TemporaryDirectory(prefix="lipstream-chromium-", ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            ["nice", "-n", "5", chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--no-first-run",
             "--autoplay-policy=no-user-gesture-required", "--disable-features=WebRtcHideLocalIpsWithMdns",
             "--disable-dev-shm-usage", f"--user-data-dir={profile}", url],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        done.wait(seconds + 30)
        browser.terminate()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
    page.shutdown()
    return results
