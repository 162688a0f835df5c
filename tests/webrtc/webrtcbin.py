"""GStreamer's webrtcbin as a client of WHEP or WHIP: webrtcbin.py whep|whip URL. Ends with 77 where it is not there."""
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstWebRTC", "1.0")
    gi.require_version("GstSdp", "1.0")
    from gi.repository import Gst, GstSdp, GstWebRTC
except (ImportError, ValueError) as error:
    print(f"no webrtcbin for Python: {error}")
    sys.exit(77)

Gst.init(None)
for name in ["webrtcbin", "nicesrc", "x264enc"]:
    if not Gst.ElementFactory.find(name):
        print(f"no element {name}")
        sys.exit(77)
mode, url, seconds = sys.argv[1], sys.argv[2], 2.5
if mode == "whip":
    pipe = Gst.parse_launch("""webrtcbin name=w bundle-policy=max-bundle
      videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=20/1 ! videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=20 ! video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! application/x-rtp,media=video,encoding-name=H264,payload=96 ! w.
      audiotestsrc is-live=true freq=440 ! audioconvert ! audioresample ! opusenc ! rtpopuspay ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! w.""")
else:
    pipe = Gst.Pipeline()
    pipe.add(Gst.ElementFactory.make("webrtcbin", "w"))
    pipe.get_by_name("w").set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
w = pipe.get_by_name("w")
counts = {}
def on_pad(_, pad):
    if pad.direction != Gst.PadDirection.SRC: return
    media = pad.get_current_caps().get_structure(0).get_string("media")
    depay = "rtph264depay" if media == "video" else "rtpopusdepay"
    dec = Gst.parse_bin_from_description(f"{depay} ! fakesink name=s sync=false", True)
    def probe(p, i): counts[media] = counts.get(media, 0) + 1; return Gst.PadProbeReturn.OK
    dec.get_by_name("s").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, probe)
    pipe.add(dec); dec.sync_state_with_parent(); pad.link(dec.get_static_pad("sink"))
w.connect("pad-added", on_pad)
if mode == "whep":
    d = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
    w.emit("add-transceiver", d, Gst.Caps.from_string("application/x-rtp,media=video,encoding-name=H264,clock-rate=90000,payload=96"))
    w.emit("add-transceiver", d, Gst.Caps.from_string("application/x-rtp,media=audio,encoding-name=OPUS,clock-rate=48000,payload=97"))
pipe.set_state(Gst.State.PLAYING)
if mode == "whip":
    time.sleep(1.0)
p = Gst.Promise.new(); w.emit("create-offer", None, p); p.wait()

reply = p.get_reply()  # It owns the offer.
offer = reply.get_value("offer")
p = Gst.Promise.new(); w.emit("set-local-description", offer, p); p.wait()
for _ in range(100):
    if w.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE: break
    time.sleep(0.05)
text = w.get_property("local-description").sdp.as_text()
print("OFFER\n" + text, file=sys.stderr)
try:
    r = urllib.request.urlopen(urllib.request.Request(url, data=text.encode(), headers={"Content-Type": "application/sdp"}))
except urllib.error.HTTPError as e:
    print("refused", e.code, e.read().decode()); sys.exit(1)
answer = r.read().decode(); loc = urllib.parse.urljoin(url, r.headers["Location"])
_, m = GstSdp.SDPMessage.new_from_text(answer)
w.emit("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, m), Gst.Promise.new())
began = time.time(); state = None
while time.time() - began < 15:
    state = w.get_property("connection-state").value_nick
    if state in ("connected", "failed"): break
    time.sleep(0.05)
print("state", state, "ms", int(1000 * (time.time() - began)))
time.sleep(seconds)
print("counts", counts)
urllib.request.urlopen(urllib.request.Request(loc, method="DELETE"))
sys.exit(0 if state == "connected" and (mode == "whip" or min(counts.get("video", 0), counts.get("audio", 0)) > 20) else 2)
