/** Documents, thresholds, labels or progress: which part of the page is shown. */
import { byId, h, refill } from "./dom.js";
import { explored, stageOf } from "./run.js";
import { link, watch } from "./state.js";

const VIEWS = [
  ["", "documents", "Documents"],
  ["thresholds", "thresholds", "Thresholds"],
  ["labels", "labels", "Labels"],
  ["progress", "progress", "Progress"],
];

export function startViews() {
  watch(draw);
}

function draw(state) {
  const view = VIEWS.some(([name]) => name === state.view) ? state.view : "";
  refill(
    byId("views"),
    !explored().one && h.a({ href: "#", data: { key: "all runs" } }, "All runs"),
    VIEWS.map(([name, , label]) =>
      h.a({ href: link({ view: name }), "aria-current": name === view ? "page" : null, data: { key: `view ${name}` } }, label),
    ),
  );
  for (const [name, part] of VIEWS) byId(part).hidden = name !== view;
  byId("filters").hidden = view !== "";
  document.body.dataset.view = view || "documents";
  document.title = `${view || "documents"} · ${stageOf(state)?.name ?? ""} · corpusmill explore`;
}
