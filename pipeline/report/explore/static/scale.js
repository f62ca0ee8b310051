/** Places on a slider and values of a column: a slider goes through a histogram's bins, so that it stands right below its chart. */

/** Places of a slider. */
export const STEPS = 1000;

/** The values at which a slider's parts begin: the histogram's edges, and the least and greatest value where those lie outside. */
export function ticks(rule, histogram) {
  const edges = histogram?.edges.length > 1 ? histogram.edges : [rule.low ?? 0, rule.high ?? 1];
  const all = [...edges];
  const threshold = Number(rule.threshold);
  const least = Math.min(rule.low ?? all[0], threshold);
  const greatest = Math.max(rule.high ?? all.at(-1), threshold);
  if (least < all[0]) all.unshift(least);
  if (greatest > all.at(-1)) all.push(greatest);
  if (all[0] === all.at(-1)) all[all.length - 1] += 1;
  return all;
}

/** The value at a slider's `place` (0 to STEPS); between two ticks it grows evenly. */
export function valueAt(all, place, whole) {
  const at = (Math.max(0, Math.min(STEPS, place)) / STEPS) * (all.length - 1);
  const left = Math.min(Math.floor(at), all.length - 2);
  const exact = all[left] + (at - left) * (all[left + 1] - all[left]);
  return whole ? Math.round(exact) : Number(exact.toPrecision(4));
}

/** The place of a value, the nearest end for one that lies outside. */
export function placeOf(all, value) {
  if (value <= all[0]) return 0;
  const right = all.findIndex((tick) => tick >= value);
  if (right < 0) return STEPS;
  const share = (value - all[right - 1]) / (all[right] - all[right - 1]);
  return Math.round((STEPS * (right - 1 + share)) / (all.length - 1));
}
