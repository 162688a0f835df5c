// Sessions and avatars: what is made and what is there.

import { request, upload } from "./api.js";

const $ = (id) => document.getElementById(id);
const WATCH = 700;

export function setUpDialogs({ tell, choose, refresh }) {
  let graphs = [];

  // A dialog's form: `send` does the work, its error stays in the dialog.
  function form(id, send) {
    const dialog = $(id);
    const fields = dialog.querySelector("form");
    const error = dialog.querySelector(".form-error");
    dialog.querySelector(".cancel").onclick = () => dialog.close();
    fields.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = fields.querySelector("[type=submit]");
      error.textContent = "";
      button.disabled = true;
      try {
        await send(fields, dialog);
        dialog.close();
      } catch (failure) {
        error.textContent = failure.message;
      } finally {
        button.disabled = false;
      }
    });
    return () => {
      error.textContent = "";
      dialog.showModal();
    };
  }

  function showGraph() {
    const dialog = $("session-dialog");
    const graph = graphs.find((g) => g.name === dialog.querySelector("[name=graph]").value);
    // The sentences after the first two are for who writes graphs.
    $("graph-description").textContent = graph?.description.split(/(?<=\.)\s/).slice(0, 2).join(" ") ?? "";
    for (const field of dialog.querySelectorAll("[data-for]")) {
      field.hidden = field.dataset.for === "avatar" ? graph?.video !== "avatar" : !["publish", "pull"].includes(graph?.video);
    }
  }

  const openSession = form("session-dialog", async (fields) => {
    const value = (name) => fields.elements[name].value.trim();
    const graph = graphs.find((g) => g.name === value("graph"));
    const spec = { id: value("id"), graph: value("graph"), always_on: fields.elements.always_on.checked };
    if (graph?.video === "avatar") spec.avatar = value("avatar");
    else if (value("pull")) spec.pull = value("pull");
    if (value("push")) spec.push = value("push").split(/\s+/);
    if (value("engine")) spec.params = { engine: value("engine") };
    const session = await request("POST", "/api/v1/sessions", { body: spec });
    fields.elements.id.value = "";
    await refresh();
    choose(session.id);
  });

  async function newSession(avatar) {
    try {
      const dialog = $("session-dialog");
      const [avatars, engines, known] = await Promise.all([
        request("GET", "/api/v1/avatars"), request("GET", "/api/v1/engines"), request("GET", "/api/v1/graphs"),
      ]);
      graphs = known;
      const options = (name, items) => dialog.querySelector(`[name=${name}]`).replaceChildren(...items);
      options("graph", graphs.map((graph) => new Option(graph.name, graph.name)));
      options("avatar", avatars.map(({ name }) => new Option(name, name, false, name === avatar)));
      // Others track faces, judge sync or work on finished ones.
      const usable = engines.filter((engine) => engine.look_ahead_ms !== undefined && !engine.error);
      options("engine", [new Option("the server's default", ""), ...usable.map((e) => new Option(e.name, e.name))]);
      showGraph();
      openSession();
    } catch (error) {
      tell(error);
    }
  }

  $("new-session").addEventListener("click", () => newSession());
  $("session-dialog").querySelector("[name=graph]").addEventListener("change", showGraph);

  const openAvatar = form("avatar-dialog", async (fields, dialog) => {
    const [name, clip, video] = ["name", "clip", "video"].map((field) => fields.elements[field]);
    const bar = dialog.querySelector(".progress");
    bar.hidden = false;
    try {
      const target = `/api/v1/avatars/${encodeURIComponent(name.value)}/clips/${encodeURIComponent(clip.value)}`;
      const told = (part) => { bar.firstElementChild.style.width = `${part * 100}%`; };
      const headers = { "Content-Type": "application/octet-stream" };
      const given = Object.fromEntries(["person", "date", "purpose", "statement"].map((field) => [field, fields.elements[field].value.trim()]));
      // Headers are ASCII; JSON can say all characters in it.
      const ascii = (text) => text.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
      if (Object.values(given).some(Boolean)) headers["Lipstream-Consent"] = ascii(JSON.stringify(given));
      await upload("PUT", target, video.files[0], headers, told);
      video.value = "";
      for (const field of Object.keys(given)) fields.elements[field].value = "";
      watchUploads();
    } finally {
      bar.hidden = true;
      bar.firstElementChild.style.width = "0";
    }
  });
  $("new-avatar").addEventListener("click", openAvatar);

  let watching = false;

  // Until nothing is prepared any more.
  async function watchUploads() {
    if (watching) return;
    watching = true;
    try {
      for (;;) {
        const uploads = await request("GET", "/api/v1/uploads");
        showUploads(uploads);
        if (!uploads.some((job) => job.state === "waiting" || job.state === "preparing")) break;
        await new Promise((resolve) => setTimeout(resolve, WATCH));
      }
      await showAvatars();
    } catch (error) {
      tell(error);
    } finally {
      watching = false;
    }
  }

  function item(title, detail, className = "") {
    const entry = document.createElement("li");
    entry.className = className;
    const name = document.createElement("b");
    name.textContent = title;
    const text = document.createElement("div");
    text.className = "quiet";
    text.textContent = detail;
    entry.append(name, text);
    return entry;
  }

  function showUploads(uploads) {
    const open = uploads.filter((job) => job.state !== "done");
    $("uploads").replaceChildren(...open.map((job) => {
      const detail = job.state === "rejected" ? job.reason : `${job.state}, ${Math.round(job.progress * 100)} %`;
      const entry = item(`${job.avatar} / ${job.clip}`, detail, job.state);
      if (job.state !== "rejected") {
        const bar = document.createElement("progress");
        bar.value = job.progress;
        entry.append(bar);
      }
      return entry;
    }));
  }

  async function showAvatars() {
    const avatars = await request("GET", "/api/v1/avatars");
    $("avatars").replaceChildren(...avatars.map((avatar) => {
      const clips = avatar.clips.map(([clip, seconds]) => `${clip} ${seconds.toFixed(1)} s`).join(", ");
      const entry = item(avatar.name, `${avatar.width}×${avatar.height}, ${avatar.fps.toFixed(2).replace(/\.?0+$/, "")} fps · ${clips}`);
      entry.classList.add("row", "between");
      const text = document.createElement("div");
      text.append(...entry.childNodes);
      if (avatar.consent) {
        const consent = document.createElement("div");
        consent.className = "quiet consent";
        consent.textContent = `${avatar.consent.person} agreed on ${avatar.consent.date}: ${avatar.consent.purpose}`;
        consent.title = `SHA-256 of the statement: ${avatar.consent.statement_sha256}`;
        text.append(consent);
      }
      const remove = document.createElement("button");
      remove.type = "button";
      remove.className = "small danger";
      remove.textContent = "Delete";
      remove.setAttribute("aria-label", `Delete avatar ${avatar.name}`);
      remove.onclick = async () => {
        if (!confirm(`Delete avatar ${avatar.name} with all its clips?`)) return;
        await request("DELETE", `/api/v1/avatars/${encodeURIComponent(avatar.name)}`).catch(tell);
        await showAvatars();
      };
      const use = document.createElement("button");
      use.type = "button";
      use.className = "small";
      use.textContent = "New session";
      use.setAttribute("aria-label", `New session with avatar ${avatar.name}`);
      use.onclick = () => newSession(avatar.name);
      const buttons = document.createElement("span");
      buttons.className = "row";
      buttons.append(use, ...(avatar.name === "demo" ? [] : [remove]));
      entry.append(text, buttons);
      return entry;
    }));
  }

  showAvatars().catch(tell);
  watchUploads();
}
