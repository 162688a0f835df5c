// Written by generate.py from docs/openapi.json.

/** Every method and path of the API. */
export type Call =
  | "GET /api/v1/audit"
  | "GET /api/v1/avatars"
  | "POST /api/v1/avatars"
  | "DELETE /api/v1/avatars/{name}"
  | "PUT /api/v1/avatars/{name}/clips/{clip}"
  | "GET /api/v1/capacity"
  | "GET /api/v1/cluster"
  | "POST /api/v1/drain"
  | "GET /api/v1/engines"
  | "GET /api/v1/engines/{name}"
  | "PUT /api/v1/engines/{name}"
  | "GET /api/v1/graphs"
  | "GET /api/v1/keys"
  | "POST /api/v1/keys"
  | "DELETE /api/v1/keys/{id}"
  | "POST /api/v1/liveavatar/sessions/start"
  | "POST /api/v1/liveavatar/sessions/stop"
  | "POST /api/v1/liveavatar/sessions/token"
  | "GET /api/v1/renders"
  | "POST /api/v1/renders"
  | "GET /api/v1/renders/{id}"
  | "DELETE /api/v1/renders/{id}"
  | "GET /api/v1/renders/{id}/result"
  | "GET /api/v1/server"
  | "GET /api/v1/sessions"
  | "POST /api/v1/sessions"
  | "GET /api/v1/sessions/{id}"
  | "DELETE /api/v1/sessions/{id}"
  | "PATCH /api/v1/sessions/{id}"
  | "GET /api/v1/sessions/{id}/agent"
  | "GET /api/v1/sessions/{id}/audio"
  | "POST /api/v1/sessions/{id}/clip"
  | "GET /api/v1/sessions/{id}/graph.svg"
  | "POST /api/v1/sessions/{id}/interrupt"
  | "POST /api/v1/sessions/{id}/speak"
  | "GET /api/v1/tenants"
  | "PUT /api/v1/tenants/{name}"
  | "DELETE /api/v1/tenants/{name}"
  | "GET /api/v1/uploads"
  | "GET /api/v1/uploads/{id}"
  | "GET /api/v1/usage";

/** What a client says. */
export type AgentCommand = { audio: string; event_id?: string | null; type: "agent.speak" } | { event_id?: string | null; type: "agent.speak_end" } | { event_id?: string | null; type: "agent.interrupt" } | { event_id?: string | null; type: "agent.start_listening" } | { event_id?: string | null; type: "agent.stop_listening" } | { event_id?: string | null; type: "session.keep_alive" };

/** What the server says. */
export type AgentEvent = { state: AgentSessionState; type: "session.state_updated" } | { new_state: AgentState; previous_state: AgentState; type: "agent.state_updated" } | AgentSource & { type: "agent.audio_buffer_appended" } | AgentSource & { type: "agent.audio_buffer_committed" } | AgentSource & { type: "agent.audio_buffer_cleared" } | AgentUtterance & { type: "agent.speak_started" } | AgentUtterance & { type: "agent.speak_ended" } | AgentUtterance & { type: "agent.speak_interrupted" } | { event_id?: string | null; ms: number; type: "agent.interrupted" } | { error: AgentFault; type: "error" };

/** Why something that the client said was not done. */
export interface AgentFault {
  /** Of what the client said. */
  event_id?: string | null;
  /** Cause and cure. */
  message: string;
  type: FaultKind;
}

export type AgentSessionState = "connecting" | "connected" | "closing" | "closed";

/** What an answer belongs to. */
export interface AgentSource {
  event_id?: string | null;
  /** The same. */
  source_event_id?: string | null;
}

export type AgentState = "idle" | "listening" | "talking";

export interface AgentTask {
  /** The utterance's `event_id`. */
  id: string;
}

/** An utterance, named by the `event_id` of its first `agent.speak`; made up where that has none. */
export interface AgentUtterance {
  cut?: Cause | null;
  event_id: string;
  /** The same. */
  source_event_id: string;
  /** What was given to the graph of it. */
  spoken_ms?: number | null;
  task: AgentTask;
}

/** A line of the audit log. */
export interface AuditEntry {
  /** Name of the key, not the key itself. */
  key: string;
  method: string;
  /** What the path names, or what has been made. */
  object: string;
  /** The path as the router has it. */
  route: string;
  /** The HTTP status of the answer. */
  status: number;
  /** Empty for the operator, as is the key. */
  tenant: string;
  /** Milliseconds since 1970. */
  time_ms: number;
}

export type Binary = string;

/** What the machine holds. */
export interface Capacity {
  cores: number;
  /** What one more 720p25 session would cost, measured. */
  cores_per_session: number;
  cores_used: number;
  /** Why the next one would be refused. */
  full?: string | null;
  /** All that one more 720p25 session would share. */
  resources: Resource[];
  scarcest: ResourceKind;
  sessions: number;
  /** 720p25 sessions that still fit. */
  sessions_left: number;
}

/** A card of NVIDIA's as its driver says it. */
export interface Card {
  memory_bytes: number;
  /** Of all programs. */
  memory_used_bytes: number;
  name: string;
  /** As the driver counts. */
  number: number;
  power_watts?: number | null;
  temperature_celsius?: number | null;
  /** The part of the last moments in which a kernel ran, 0 to 1. */
  utilisation?: number | null;
}

/** Why an utterance was not spoken to its end. */
export type Cause = "interrupted" | "stalled" | "unheard";

/** What changes; the rest stays. */
export interface Change {
  /** One of the session's `clips`, shown from the next frame on where the two fit together. */
  clip?: string | null;
  /** Parameters of the graph that can change while it runs, such as `motion-gain`. */
  params?: Record<string, string>;
  /** Which of several faces speak: `largest`, `all`, `auto`, `left`, `right` or `track:N`. */
  speaker?: string | null;
  /** Which of the others its second voice moves, of a session that has one. */
  speaker_b?: string | null;
}

/** The clip to show. */
export interface Clip {
  /** One of the session's `clips`. */
  clip: string;
}

/** The consent record of an avatar. */
export interface Consent {
  /** On which day, as `2026-11-28`. */
  date: string;
  /** Who has agreed. */
  person: string;
  /** To what. */
  purpose: string;
  /** When the server was told, in seconds since 1970. */
  recorded: number;
  /** SHA-256 of the statement that they made, in hexadecimal. */
  statement_sha256: string;
}

/** A consent as it comes with an upload. */
export interface ConsentGiven {
  /** On which day, as `2026-11-28`. */
  date: string;
  /** Who agrees: 1 to 200 characters. */
  person: string;
  /** To what: 1 to 1000 characters. */
  purpose: string;
  /** In its place the statement's text, which is hashed as UTF-8 and not kept. */
  statement?: string | null;
  /** SHA-256 of the statement that they made, a signed form or a recording, in hexadecimal. */
  statement_sha256?: string | null;
}

/** Container of the result. */
export type Container = "mp4" | "mov" | "mkv" | "webm";

/** An engine that is installed. */
export interface Engine {
  bytes: number;
  /** Frames that it makes together. */
  clip_frames?: number | null;
  description: string;
  /** What it runs on here. */
  device: string;
  /** What is wrong with it. */
  error?: string | null;
  family: string;
  /** The same by stage: `front_end` (where a network computes the features of the sound), `encode`, `step` (one step of denoising without guidance), `forward`, `decode`, `decode_tiny` (in place of `decode` where it is asked for), `refine`. */
  gflop_by_stage?: Record<string, number>;
  gflop_per_frame: number;
  licence: string;
  location: string;
  /** Sound after a frame's time that it waits for, in milliseconds. */
  look_ahead_ms?: number | null;
  /** Those that a session may choose as `look_ahead_ms`, in milliseconds, its own first: sound that a mouth may hear, without what a frame waits for besides. */
  look_aheads_ms?: number[];
  name: string;
  /** How often a frame passes `step` where nobody says how many steps it takes: twice for each that is guided. */
  step_passes?: number | null;
  version: string;
}

/** One batched evaluation of an engine's network. */
export interface EngineStage {
  /** Evaluations, and frames or steps of frames in them. */
  batches: number;
  items: number;
  /** `encode`, `step`, `forward`, `decode` or `refine`. */
  name: string;
  /** The median and the 95th percentile of an evaluation's time. */
  p50_ms: number;
  p95_ms: number;
}

/** A version of an engine. */
export interface EngineVersion {
  aliases: string[];
  /** What the engine is called where this version is meant. */
  engine: string;
  /** What is wrong with its files. */
  error?: string | null;
  failures: number;
  frames: number;
  frames_late: number;
  loaded: boolean;
  /** Sessions whose graph runs with it, as far as they are the caller's. */
  sessions: number;
  version: string;
}

/** An engine and its versions. */
export interface EngineVersions {
  /** Versions by alias; `stable` is what the name alone stands for. */
  aliases: Record<string, string>;
  name: string;
  rolled_back?: RolledBack | null;
  /** Percent of the sessions that have the version `canary`. */
  share: number;
  versions: EngineVersion[];
}

/** What happens to the speech, in order: of each utterance `listening`, `speaking` where a sample of it is heard, `ended`; `idle` after the last `ended` of what was queued; after an interruption `flushed`, behind the `ended` of all utterances that it cut and behind `idle`. */
export type Event = { type: "listening"; utterance: string } | { type: "speaking"; utterance: string } | { cut?: Cause | null; spoken_ms: number; type: "ended"; utterance: string } | { type: "idle" } | { ms: number; type: "flushed" };

export type FaultKind = "invalid_message" | "invalid_audio" | "too_large" | "buffer_full" | "audio_starvation" | "failed";

/** A graph that sessions can have. */
export interface Graph {
  description: string;
  name: string;
  params: Parameter[];
  video: Video;
  voice: Voice;
}

/** A STUN or TURN server, as browsers take it (`RTCIceServer`). */
export interface IceServer {
  credential?: string | null;
  urls: string[];
  username?: string | null;
}

/** The speech is gone and the mouth at rest. */
export interface Interrupted {
  /** Milliseconds that it took. */
  ms: number;
}

/** What is known about a key. */
export interface Key {
  /** Seconds since 1970. */
  created: number;
  /** Its name in the audit log; not the key. */
  id: string;
  note: string;
  /** When it was revoked. */
  revoked?: number | null;
  scopes: Scope[];
  tenant: string;
}

/** Where the visible label is. */
export type LabelCorner = "top-left" | "top-right" | "bottom-left" | "bottom-right";

/** What a tenant may hold and do. */
export interface Limits {
  /** Requests that a key may send at once; those of a minute where it is not set. */
  burst?: number | null;
  /** Requests a minute of each of its keys. */
  requests_per_minute?: number | null;
  /** Seconds a calendar month, in UTC, for which graphs of its sessions run; then they end. */
  session_seconds?: number | null;
  /** Sessions at once. */
  sessions?: number | null;
  /** Bytes of its avatars, uploads and renders. */
  stored_bytes?: number | null;
  /** Viewers at once, of all its sessions. */
  viewers?: number | null;
}

export interface LiveAvatarSession {
  /** The session's token. */
  livekit_agent_token: string;
  /** The session's token. */
  livekit_client_token: string;
  /** Empty: this server has no LiveKit room. */
  livekit_url: string;
  max_session_duration: number;
  session_id: string;
  /** Where the picture and the sound are played, by WHEP with the token as bearer. */
  whep_url: string;
  /** The WebSocket with the words of the LITE mode; the token is in it. */
  ws_url: string;
}

export interface LiveAvatarStartAnswer {
  code: number;
  data: LiveAvatarSession;
  message: string;
}

/** The session that ends. */
export interface LiveAvatarStop {
  /** The token's own. */
  session_id?: string | null;
}

export interface LiveAvatarStopAnswer {
  code: number;
  data?: Record<string, unknown> | null;
  message: string;
}

/** The session that is wanted. */
export interface LiveAvatarToken {
  /** Name of an avatar of this server. */
  avatar_id: string;
  /** A LiveKit room cannot be joined: anything but null is refused. */
  livekit_config?: Record<string, unknown> | null;
  /** Seconds; at most a day. */
  max_session_duration?: number | null;
  /** `LITE`: the client brings the voice. */
  mode?: string | null;
}

export interface LiveAvatarTokenAnswer {
  code: number;
  data: LiveAvatarTokenData;
  message: string;
}

export interface LiveAvatarTokenData {
  session_id: string;
  /** Opens what shows this session and what speaks in it, until it ends: WHEP, WHIP of the voice, both WebSockets, `speak` and `interrupt`. */
  session_token: string;
}

/** An engine that sessions share. */
export interface Loaded {
  /** How long a batch waits for those of other sessions. */
  batch_timeout_ms: number;
  name: string;
  /** Frames or clips that wait for a stage. */
  queued: number;
  stages: EngineStage[];
  /** Streams that it makes mouths for. */
  streams: number;
}

/** A key that has just been made. */
export type MadeKey = Key & { key: string };

/** A mark that a stream carries. */
export type Mark = "h264-sei" | "rtmp-metadata" | "whep-header" | "watermark" | "label";

/** A key that is wanted. */
export interface NewKey {
  /** What it is for; at most 200 bytes. */
  note?: string;
  /** All where nothing is said. */
  scopes?: Scope[];
  tenant: string;
}

/** What a node says of itself, each second and with each change. */
export interface Node {
  cores: number;
  cores_used: number;
  /** It takes no new sessions, and those that it has move away. */
  draining: boolean;
  /** Engines that its sessions have loaded. */
  engines: string[];
  /** Milliseconds since it was heard last; 0 of the node that was asked. */
  heard_ms?: number;
  /** Another one with each start of the node. */
  instance: string;
  /** Whether the prices have been measured yet. */
  measured: boolean;
  name: string;
  /** Where clients reach it, where it has a public URL. */
  public_url?: string | null;
  /** What sessions share of it, with what is taken and what one more would add. */
  resources: Resource[];
  /** `HOST:PORT` of its RTMP, where that is on. */
  rtmp?: string | null;
  sessions: number;
  /** 720p25 sessions that still fit, by measured prices, beside all that it has, running or not. */
  sessions_free: number;
  /** Where other nodes reach it by HTTP. */
  url: string;
  version: string;
}

/** One thing that a user should know. */
export interface Notice {
  /** What it is about, for programs: `tone-mapped`, `cut-off`, . */
  kind: string;
  /** One line for people, with the file's name where there is one. */
  text: string;
  /** Whether the result is less than it would be without the cause; otherwise it is what was chosen or converted. */
  warning: boolean;
}

/** Whether what is before a face stays before its mouth. */
export type Occlusion = "auto" | "off";

/** How to render. */
export interface Options {
  /** What becomes of the video's transparency: `drop` (it is laid on black, as where it is left out), `keep` (in `webm` and `mov`), `#rrggbb` (it is laid on that colour) or `stack` (the picture above, its alpha as a grey picture below). */
  alpha?: string | null;
  container?: Container;
  /** Quality of H.264, lower is better. */
  crf?: number;
  /** Engine by name; the server's where it is not said. */
  engine?: string | null;
  /** What makes the face better once the mouth is pasted: `sharpen`, `clahe`, `detail`, `combined`, or an enhancer by the name under which it was imported. */
  enhance?: string | null;
  /** Frames of a face for one evaluation of an enhancer; 1 where it is left out. */
  enhance_every?: number | null;
  /** How much of the enhancement is blended in; 0.8 where it is left out. */
  enhance_strength?: number | null;
  /** By how much the whole picture is enlarged before its face is enhanced; 1 where it is left out. */
  face_upscale?: number | null;
  /** Of an enhancer that has a weight, such as CodeFormer: 0 is the best picture, 1 the most like the face; 0.5 where it is left out. */
  fidelity?: number | null;
  /** Text in every picture for all to see: at most 100 Latin, Greek or Cyrillic characters. */
  label?: string | null;
  label_corner?: LabelCorner | null;
  /** Play the video backward and forward again where the speech is longer; otherwise the shorter one ends both. */
  loop?: boolean;
  /** How far the mouth moves, 1 being as learnt. */
  motion_gain?: number | null;
  /** How much of the mouth is kept from the enhancement; 0.8 where it is left out. */
  mouth_protection?: number | null;
  occlusion?: Occlusion | null;
  quality?: Quality | null;
  /** Which of several faces speak: `largest`, `all`, `auto`, `left`, `right` or `track:N`; the largest where it is left out. */
  speaker?: string | null;
  /** Which of the others the second voice moves, `audio_b` of the form; the largest where it is left out. */
  speaker_b?: string | null;
}

/** A parameter as the API describes it. */
export interface Parameter {
  default?: string | null;
  doc: string;
  /** Type and range or values. */
  kind: string;
  name: string;
}

/** Where a session is in its life. */
export type Phase = "idle" | "waiting" | "running" | "restarting";

/** Why a request failed and what helps. */
export interface Problem {
  /** Cause and cure. */
  detail: string;
  /** The HTTP status. */
  status: number;
  /** The HTTP status in words. */
  title: string;
  /** Stays the same for one kind of problem: `urn:lipstream:` and the kind. */
  type: string;
}

/** A connection that the session opens: a push of its output, or the URL that it reads. */
export interface Push {
  connected: boolean;
  error?: string | null;
  reconnects: number;
  url: string;
}

/** How the video is encoded. */
export type Quality = "high";

/** What the API says about a job. */
export interface Render {
  /** Jobs that are rendered before this one; 0 for one that is not queued. */
  ahead: number;
  bytes?: number | null;
  container: Container;
  /** Seconds since 1970. */
  created: number;
  /** Why it failed. */
  error?: string | null;
  finished?: number | null;
  /** Frames a second that are made of it, while it is rendered. */
  fps?: number | null;
  frames?: number | null;
  id: string;
  /** What was chosen, converted or missing in the inputs. */
  notices?: Notice[];
  /** Done so far, 0 to 1. */
  progress: number;
  /** Of the result. */
  seconds?: number | null;
  /** Until it is done, while it is rendered. */
  seconds_left?: number | null;
  started?: number | null;
  state: RenderState;
}

/** Where a job is in its life. */
export type RenderState = "queued" | "running" | "done" | "failed" | "cancelled";

/** Something that sessions share: CPU seconds a second, seconds of a card's time a second, or bytes of its memory. */
export interface Resource {
  /** `cpu` or `cuda:0`. */
  device: string;
  kind: ResourceKind;
  /** What one more 720p25 session would add. */
  per_session: number;
  /** What sessions may use. */
  room: number;
  /** By the prices of the sessions that run; of memory what all programs have taken. */
  used: number;
}

/** What sessions share; the scarcest of them ends first. */
export type ResourceKind = "cores" | "gpu-time" | "gpu-memory";

/** A version that was taken back. */
export interface RolledBack {
  reason: string;
  version: string;
}

/** Which version sessions have. */
export interface Rollout {
  /** Versions by alias: `stable` is what the name alone stands for, `canary` what the share of the sessions has. */
  aliases?: Record<string, string>;
  /** Percent of the sessions that have the canary; a session that has it keeps it while the share grows. */
  share?: number;
}

/** What a tenant's key may do with the tenant's own. */
export type Scope = "operate" | "speak" | "watch" | "publish";

/** A moment of a session's second voice, of which the session's own `speaking`, `speech_queued_ms` and so on do not tell. */
export interface SecondVoice {
  publishing: boolean;
  /** Sample periods of silence, at 48 kHz, because who publishes it sent no sound. */
  samples_missing: number;
  source?: Source | null;
  /** The number of the face whose mouth it moves; null where there is none. */
  speaker_track?: number | null;
  speaking: boolean;
  speech_queued_ms: number;
}

/** The server itself. */
export interface Server {
  /** NVIDIA's cards; none where no driver is. */
  cards: Card[];
  /** Cores of the machine. */
  cores: number;
  /** CPU seconds that the process has taken. */
  cpu_seconds: number;
  /** What encodes the H.264 of sessions. */
  encoder: string;
  /** Engines that are loaded. */
  engines: Loaded[];
  /** STUN and TURN servers for clients of WHIP and WHEP. */
  ice_servers: IceServer[];
  memory_bytes: number;
  /** Where RTMP clients publish and play, without the session; none where RTMP is off. */
  rtmp_url?: string | null;
  threads: number;
  version: string;
}

/** What a source sends, before it is brought to the session's size and rate. */
export interface Source {
  audio_codec?: string | null;
  channels?: number | null;
  /** By the source's own word; measured where it says none. */
  fps?: number | null;
  height?: number | null;
  sample_rate?: number | null;
  /** Since the last picture or sound of it came. */
  seen_ms_ago?: number | null;
  video_codec?: string | null;
  /** `RTMP 192.0.2.7:51234`, `a WHIP client`, . */
  who: string;
  width?: number | null;
}

/** A session as it is created. */
export interface Spec {
  /** What becomes of transparency, as the graph's parameter `alpha`: `drop` (laid on black), `key:#rrggbb` (laid on that colour) or `stack` (the picture above, its alpha as a grey picture below); it is dropped where nobody says. */
  alpha?: string | null;
  /** Runs without viewers too. */
  always_on?: boolean;
  /** Name of the avatar, for graphs that show one. */
  avatar?: string | null;
  /** Engine by name, as the graph's parameter `engine`; the server's where nobody says. */
  engine?: string | null;
  /** Name of a graph: `avatar`, `relay`, `dub`, `rtmp-push`, or a file in the configured folder, without `.toml`. */
  graph: string;
  /** 1 to 64 of `a-z A-Z 0-9 . */
  id: string;
  /** Seconds without viewers after which the graph stops; the default is the server's. */
  idle_seconds?: number | null;
  /** Text in every picture for all to see, as the graph's parameter `label`: at most 100 Latin, Greek or Cyrillic characters. */
  label?: string | null;
  label_corner?: LabelCorner | null;
  /** Sound after a frame that its mouth may hear, in milliseconds, as the graph's parameter `look-ahead`: one of the engine's `look_aheads_ms`. */
  look_ahead_ms?: number | null;
  occlusion?: Occlusion | null;
  /** Parameters of the graph, as its file lists them. */
  params?: Record<string, string>;
  /** Name under which RTMP clients play it, besides `KEY/synced`. */
  play?: string | null;
  /** URL to read, for graphs that pull. */
  pull?: string | null;
  /** RTMP, SRT and WHIP URLs (`whip://` is by HTTP, `whips://` by HTTPS) to which the output is pushed while the session runs. */
  push?: string[];
  /** Which of several faces speak, as the graph's parameter `speaker`: `largest`, `all`, `auto`, `left`, `right` or `track:N`; the largest where nobody says. */
  speaker?: string | null;
  /** Gives the session a second voice, voice `b`, and says which faces it moves of those that the first one does not: as `speaker`, where `auto` is the largest. */
  speaker_b?: string | null;
  /** Secret that an RTMP publisher must add to the URL as `?key=`. */
  stream_key?: string | null;
}

/** Speech that has been queued. */
export interface Spoken {
  /** Its length. */
  seconds: number;
  utterance: string;
}

export interface Stage {
  name: string;
  p50_ms: number;
  p95_ms: number;
  p99_ms: number;
}

export type State = "waiting" | "preparing" | "done" | "rejected";

/** A moment of a session. */
export interface Status {
  /** How much later a picture is shown than the sound that belongs to it, in the graph; frames are placed by their timestamps exactly, so this is what the resampler of the sound has still to correct. */
  av_offset_ms: number;
  avatar?: string | null;
  clip?: string | null;
  clips: string[];
  /** The engine in use, `NAME@VERSION` where it has versions; null where no graph runs. */
  engine?: string | null;
  /** Why that is not the one that it is to have. */
  engine_reason?: string | null;
  /** Stages of the engine, counted over all sessions that share it. */
  engine_stages: EngineStage[];
  face: boolean;
  /** Of the last interruption: until the mouth was at rest and the queue empty. */
  flush_ms?: number | null;
  /** Measured over the last second. */
  fps: number;
  frames: number;
  frames_dropped: number;
  /** Held: the last frame again, because the publisher sent none. */
  frames_held: number;
  frames_late: number;
  /** Frames that keep their own mouth although another was wanted, by reason: `no-face`, `cut-off` (by the picture's edge), `too-small`, `turned-away`, `covered`, `unclear`, `late`. */
  frames_untouched: Record<string, number>;
  graph: string;
  height: number;
  id: string;
  /** The 99th percentile of the time between frames that leave. */
  interval_p99_ms: number;
  /** From voice in to lips out, inside the graph. */
  latency_ms: number;
  /** What says in its streams that a machine made a part of the picture. */
  marks: Mark[];
  /** The node of the cluster that has it; null where there is no cluster. */
  node?: string | null;
  /** Parameters of the graph that are set; the others have the graph's defaults. */
  params: Record<string, string>;
  phase?: Phase | null;
  publishing: boolean;
  publishing_voice: boolean;
  pull?: Push | null;
  pushes: Push[];
  /** Why the last graph stopped, or what the session waits for. */
  reason?: string | null;
  restarts: number;
  /** Sample periods of silence, at 48 kHz, because the publisher sent no sound. */
  samples_missing: number;
  /** How fast the source's clock is against ours, in parts per million. */
  skew_ppm: number;
  source?: Source | null;
  /** From a source's sound to its place in the output, for its jitter; 0 where there is no live source. */
  source_delay_ms: number;
  source_sync_confidence?: number | null;
  /** The same of the source's own lips: more than one frame means that its picture and sound are apart, about which nothing is done. */
  source_sync_offset?: number | null;
  /** With the speaker `auto`, by how much its lips follow the sound better than those of the next face, 0..1; null before that is known. */
  speaker_confidence?: number | null;
  /** The number of the face whose mouth is made, for `track:N`; of the largest where several are. */
  speaker_track?: number | null;
  speaking: boolean;
  speech_queued_ms: number;
  /** Stages of the graph with the 50th, 95th and 99th percentile of their time a frame. */
  stages: Stage[];
  /** How much better they agree there than elsewhere, 0..1: above 0.1 in most faces. */
  sync_confidence?: number | null;
  /** Times that the mouth was off for long and was corrected, and by how much later features are taken for that. */
  sync_corrections: number;
  /** Frames of 40 ms by which the mouth that is made is later than the voice, by the sync check; null before eight seconds of speech, and where lips and voice do not tell. */
  sync_offset?: number | null;
  sync_shift_ms: number;
  /** Seconds since the graph started. */
  uptime: number;
  video?: Video | null;
  video_bitrate: number;
  viewers: number;
  voice?: Voice | null;
  voice_b?: SecondVoice | null;
  voice_source?: Source | null;
  width: number;
}

/** What the API says about an avatar. */
export interface Summary {
  /** Clips by name, the idle one first, with their length in seconds. */
  clips: [string, number][];
  consent?: Consent | null;
  fps: number;
  height: number;
  name: string;
  width: number;
}

/** What the API says about a tenant. */
export interface Tenant {
  limits: Limits;
  name: string;
  /** Used of this month. */
  session_seconds: number;
  /** Held now. */
  sessions: number;
  stored_bytes: number;
  viewers: number;
}

/** An upload that becomes a clip of an avatar. */
export interface Upload {
  avatar: string;
  clip: string;
  id: string;
  /** What was chosen, converted or missing in the video. */
  notices?: Notice[];
  /** 0..1. */
  progress: number;
  /** Why it was rejected. */
  reason?: string | null;
  result?: Summary | null;
  state: State;
}

/** The usage of a tenant in a month. */
export interface Usage {
  /** Encoded media that was handed to viewers and pushes, and results of renders; not what protocols add. */
  egress_bytes: number;
  /** Frames that left the graphs of its sessions, and those of its renders that are done. */
  frames: number;
  /** Taken of a card by engines for its sessions, of each evaluation their part, and by renders that ran on one; 0 without a card. */
  gpu_seconds: number;
  /** In UTC. */
  month: string;
  /** For which graphs of its sessions ran. */
  session_seconds: number;
  tenant: string;
}

/** Where a session's pictures come from. */
export type Video = "avatar" | "publish" | "pull";

/** What the lips follow and viewers hear. */
export type Voice = "speech" | "source" | "second";
