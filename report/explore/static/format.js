/** Formats numbers for people. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

export const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));

/** 12,345,678 as 12.3M */
export const roughly = (number) => (number === null || number === undefined ? "–" : short.format(number));

/** A share in percent. A share that is not exactly none or all is never shown as 0% or 100%. */
export function share(part, all) {
  if (!all) return "–";
  const percent = (100 * part) / all;
  if (part > 0 && percent < 0.1) return "< 0.1%";
  if (part < all && percent > 99.9) return "> 99.9%";
  return `${percent.toFixed(1)}%`;
}

/** Formats a measured value: numbers with four significant digits, booleans as yes and no, lists with commas. */
export function value(given) {
  if (given === null || given === undefined || given === "") return "–";
  if (typeof given === "boolean") return given ? "yes" : "no";
  if (typeof given === "number") return Number.isInteger(given) && Math.abs(given) < 1e15 ? whole.format(given) : digits.format(given);
  if (Array.isArray(given)) return given.map(value).join(", ");
  return String(given);
}

const languages = new Intl.DisplayNames("en", { type: "language", fallback: "none" });

/** A language with its English name, Japanese (ja), or the code alone. */
export function language(code) {
  try {
    const name = languages.of(code.replace("_", "-"));
    return name ? `${name} (${code})` : code;
  } catch {
    return code; // no code
  }
}

/** Returns an object's own member; safe for any name (`constructor`, `__proto__`). */
export const member = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** Comparison signs in words, as in "drops when words is below 50". */
const WORDS = { "<": "is below", "<=": "is at most", ">": "is above", ">=": "is at least", "==": "is", "not in": "is not one of" };

export const comparison = (rule) => WORDS[rule.comparison] ?? rule.comparison;

/** When a rule drops: "words is below 50". */
export const condition = (rule) => `${rule.column} ${comparison(rule)} ${value(rule.threshold)}`;

/** Seconds as "3 min 20 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
