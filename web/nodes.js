// The nodes of a cluster, with those that have fallen silent for a while.

import { key, request } from "./api.js";

// Time for which a node that is no longer heard is still shown.
const REMEMBERED = 300_000;

const heard = new Map();
let refused;

// `null` where the server is in no cluster, or does not tell this key of it.
export async function askForNodes() {
  if (refused === (key() ?? "")) return null;
  const now = performance.now();
  let nodes;
  try {
    nodes = await request("GET", "/api/v1/cluster");
  } catch (error) {
    if (![403, 404].includes(error.status)) throw error;
    refused = key() ?? "";
    return null;
  }
  for (const node of nodes) heard.set(node.name, { node, at: now - node.heard_ms });
  for (const [name, { at }] of heard) if (now - at > REMEMBERED) heard.delete(name);
  const live = new Set(nodes.map((node) => node.name));
  return [...heard.values()]
    .map(({ node, at }) => ({ ...node, silent: !live.has(node.name), seconds: (now - at) / 1000 }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function stateOf(node) {
  if (node.silent) return node.draining ? "drained, gone" : "not heard";
  if (node.draining) return "being drained";
  if (!node.measured) return "being measured";
  return node.sessions_free ? "takes sessions" : "full";
}
