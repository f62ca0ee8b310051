/** Questions to the server. All are reads; an answer that nobody waits for any more is cut off. */

const running = new Map();
let busy = 0;

/** What the server has refused, or that it can't be reached, as one sentence. */
export class Refusal extends Error {}

/** Whether an error only says that a newer question has taken this one's place. */
export const isStale = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * The answer to `/api/PATH?PARAMETERS` as data. An open question of the same `slot` is aborted. Throws Refusal,
 * or an error for which `isStale` holds.
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

/** Cuts off the open question of a slot. */
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
