/** Requests to the server, and what the page shows while it waits or when a request is refused. */
import { button, byId, h } from "./dom.js";
import { current } from "./state.js";
import { plain } from "./text.js";

const running = new Map();
let busy = 0;

/** A request that the server refused or that did not reach it; the message is one sentence. */
class Refusal extends Error {}

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
  try {
    return await answer(address(path, parameters), { signal: controller.signal });
  } finally {
    if (running.get(slot) === controller) running.delete(slot);
  }
}

/** The address of `/api/PATH?PARAMETERS` for the run that is open. */
export function address(path, parameters) {
  const all = new URLSearchParams(parameters);
  if (current().run && !all.has("run")) all.set("run", current().run);
  return `/api/${path}${String(all) && "?"}${all}`;
}

const TOKEN = "corpusmill-token";

/** Takes the token out of the address, so that no link to this page holds it. This tab keeps it. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  if (token === null) return;
  given.delete("token");
  history.replaceState(null, "", `#${given}`);
  sessionStorage.setItem(TOKEN, token);
}

/** Does an action on the open run (`/api/NAME`, POST) and returns its answer. Throws Refusal. */
export const act = (name, body) =>
  answer(`/api/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Corpusmill-Token": sessionStorage.getItem(TOKEN) ?? "" },
    body: JSON.stringify({ run: current().run, ...body }),
  });

async function answer(url, options) {
  working(+1);
  try {
    const response = await reach(url, options);
    const body = await response.json().catch((error) => {
      if (isStale(error)) throw error;
      throw new Refusal(`The server's answer (${response.status}) can't be read.`);
    });
    if (!response.ok) throw new Refusal(typeof body?.detail === "string" ? body.detail : `The server says ${response.status}.`);
    return body;
  } finally {
    working(-1);
  }
}

/** Aborts the open request of a slot. */
export const stop = (slot) => running.get(slot)?.abort();

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (isStale(error)) throw error;
    throw new Refusal("The server can't be reached: is `corpusmill explore` still running?");
  }
}

function working(change) {
  busy += change;
  document.documentElement.dataset.busy = String(busy > 0);
}

/** Calls `act` with the last arguments when `wait` milliseconds have passed without another call. Until then the page counts as busy. */
export function debounced(act, wait) {
  let timer = null;
  return (...values) => {
    if (timer === null) working(+1);
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = null;
      act(...values);
      working(-1);
    }, wait);
  };
}

const sentences = new Map();

/** Does `work` while `part` is marked as busy. Returns true where it finished, false where it failed or a newer call replaced it. */
export async function attempt(part, work) {
  part.setAttribute("aria-busy", "true");
  try {
    await work();
    showError(part.id, null);
    part.removeAttribute("aria-busy");
    return true;
  } catch (error) {
    if (isStale(error)) return false;
    part.removeAttribute("aria-busy");
    showError(part.id, error.message, () => attempt(part, work));
    return false;
  }
}

/** Shows a sentence for a part, or removes it. */
export function showError(part, sentence, again = null) {
  if (sentence) sentences.set(part, { sentence, again });
  else sentences.delete(part);
  const shown = [...sentences.values()].map(({ sentence: text, again: act }) =>
    h.span({ class: "sentence" }, plain(text), act && button("Try again", act)),
  );
  byId("error").replaceChildren(...shown);
  byId("error").hidden = shown.length === 0;
}
