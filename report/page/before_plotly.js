"use strict";
// The content security policy refuses styles that scripts write as text, and would log errors for two habits of plotly.js. It adds a style
// element for maps while it loads: no map is drawn here, so it gets an inert element instead. It sets style attributes: these are set
// property by property instead, which the policy allows.
const createElement = document.createElement;
document.createElement = function (name, ...rest) {
  return createElement.call(document, String(name).toLowerCase() === "style" ? "template" : name, ...rest);
};
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style" && this.style) this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
