// What htmx leaves to the page: to say aloud when a request failed, and to keep a table where it was scrolled to.
// Everything else works without this file.
"use strict";
(() => {
  const say = (text) => {
    const place = document.getElementById("wrong");
    if (place) place.textContent = text;
  };
  const told = (html) => new DOMParser().parseFromString(html, "text/html").querySelector("[data-problem]");
  const scrolled = new Map();
  document.addEventListener("htmx:beforeSwap", () => {
    for (const place of document.querySelectorAll(".scroll[id]")) scrolled.set(place.id, place.scrollLeft);
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const [id, left] of scrolled) document.getElementById(id)?.scrollTo({ left });
  });
  document.addEventListener("htmx:beforeRequest", () => say(""));
  document.addEventListener("htmx:sendError", () => say("The service cannot be reached. Try again in a moment."));
  document.addEventListener("htmx:responseError", (event) => {
    const found = told(event.detail.xhr.responseText);
    say(found ? found.textContent : `The service answered with status ${event.detail.xhr.status}.`);
  });
})();
