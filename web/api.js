// Requests to the API. Errors carry what the server said, as it said it.

const KEY = "lipstream-key";

export class ApiError extends Error {
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
  }
}

let asking = null;

// Asks for a key once, however many requests wait for it.
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    document.getElementById("key-error").textContent = key() ? "The server does not know this key." : "";
    dialog.addEventListener("close", () => {
      const field = dialog.querySelector("input");
      sessionStorage.setItem(KEY, field.value);
      field.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export function key() {
  return sessionStorage.getItem(KEY);
}

export function authorization() {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}

// Answers are JSON unless `raw` asks for the response itself.
export async function request(method, path, { body, headers = {}, raw = false, keepalive = false } = {}) {
  const used = key();
  const json = body !== undefined && !(body instanceof Blob) && typeof body !== "string";
  let response;
  try {
    response = await fetch(path, {
      method,
      body: json ? JSON.stringify(body) : body,
      headers: { ...(json ? { "Content-Type": "application/json" } : {}), ...headers, ...authorization() },
      keepalive,
    });
  } catch (error) {
    throw new ApiError(0, "The server does not answer", String(error.message));
  }
  if (response.status === 401) {
    // Another request may have brought a key meanwhile.
    if (key() === used) await askForKey();
    return request(method, path, { body, headers, raw, keepalive });
  }
  if (!response.ok) throw await problem(response);
  if (raw) return response;
  return response.status === 204 || response.status === 202 && !response.headers.get("content-type")
    ? null : response.json();
}

async function problem(response) {
  const text = await response.text();
  try {
    const { title, detail } = JSON.parse(text);
    return new ApiError(response.status, title, detail);
  } catch {
    return new ApiError(response.status, `${response.status} ${response.statusText}`, text.slice(0, 300));
  }
}

// fetch does not tell how far an upload is; the older interface does.
export function upload(method, path, file, headers, progress) {
  return new Promise((resolve, reject) => {
    const sent = new XMLHttpRequest();
    sent.open(method, path);
    for (const [name, value] of Object.entries({ ...headers, ...authorization() })) sent.setRequestHeader(name, value);
    sent.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    sent.onerror = () => reject(new ApiError(0, "The upload broke off", "the server ended the connection"));
    sent.onload = async () => {
      const response = new Response(sent.responseText || null, { status: sent.status, statusText: sent.statusText });
      if (sent.status >= 400) reject(await problem(response));
      else resolve(sent.responseText ? JSON.parse(sent.responseText) : null);
    };
    sent.send(file);
  });
}

// A browser gives its key to a WebSocket as a subprotocol.
export function socket(path) {
  const protocols = ["lipstream"];
  if (key()) {
    const bytes = new TextEncoder().encode(key());
    const text = btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
    protocols.push(`bearer.${text}`);
  }
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, protocols);
}
