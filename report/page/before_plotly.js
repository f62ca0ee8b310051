"use strict";
// The policy refuses styles that scripts write as text, so plotly.js has to do without two habits, and the console stays free of complaints:
// a style element for its maps while it loads (no map is drawn here: it gets an inert element instead), and style attributes, which are
// set property by property instead, as the policy allows.
const createElement = document.createElement;
document.createElement = function (name, ...rest) {
  return createElement.call(document, String(name).toLowerCase() === "style" ? "template" : name, ...rest);
};
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style" && this.style) this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
