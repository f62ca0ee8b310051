"use strict";
// plotly.js puts a style element for its maps into the page while it loads. The policy refuses it, and no map is drawn here,
// so it is given an inert element instead and the console stays free of complaints.
const createElement = document.createElement;
document.createElement = function (name, ...rest) {
  return createElement.call(document, String(name).toLowerCase() === "style" ? "template" : name, ...rest);
};
