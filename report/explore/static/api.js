/** Requests to the server. All of them only read. A request whose answer is no longer needed is aborted. */

const running = new Map();
let busy = 0;

/** A request that the server refused or that did not reach it; the message is one sentence. */
export class Refusal extends Error {}

/** Whether an error only means that a newer request has replaced this one. */
export const isStale = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * Returns the answer to `/api/PATH?PARAMETERS` as data. Aborts an open request of the same `slot`. Throws Refusal, or an error for which
 * `isStale` holds.
 */
export async function ask(slot, path, parameters = new URLSearchParams()) {
  stop(slot);
  const controller = new AbortController();
  running.set(slot, controller);
  working(+1);
  try {
    const response = await reach(`/api/${path}${String(parameters) && "?"}${parameters}`, controller.signal);
    const body = await response.json().catch((error) => {
      if (isStale(error)) throw error;
      throw new Refusal(`The server's answer (${response.status}) can't be read.`);
    });
    if (!response.ok) throw new Refusal(typeof body?.detail === "string" ? body.detail : `The server says ${response.status}.`);
    return body;
  } finally {
    if (running.get(slot) === controller) running.delete(slot);
    working(-1);
  }
}

/** Aborts the open request of a slot. */
export const stop = (slot) => running.get(slot)?.abort();

async function reach(address, signal) {
  try {
    return await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (isStale(error)) throw error;
    throw new Refusal("The server can't be reached: is `corpusmill explore` still running?");
  }
}

function working(change) {
  busy += change;
  document.documentElement.dataset.busy = String(busy > 0);
}
