"use strict";

const answer = await_sessions();

async function await_sessions() {
  const sessions = await (await fetch("/api/v1/sessions")).json();
  for (const session of sessions) {
    const item = document.createElement("li");
    item.textContent = `${session.id}: ${session.phase}`;
    document.getElementById("sessions").append(item);
  }
}
