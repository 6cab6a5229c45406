"use strict";

/* Keyboard shortcuts. The sheet of them is in the page: a link with data-keys is where these keys lead. */
(() => {
  const sheet = document.getElementById("keys");
  const opener = document.querySelector("[data-opens=keys]");
  const on = sheet.querySelector("[name=keys]");
  const FIRST_KEY_COUNTS = 1500; /* milliseconds */
  let first = "";
  let firstAt = 0;

  try {
    on.checked = localStorage.getItem("keys") !== "off";
  } catch {
    /* a browser that keeps nothing */
  }
  on.addEventListener("change", () => {
    try {
      localStorage.setItem("keys", on.checked ? "on" : "off");
    } catch {
      /* off until the next page */
    }
  });

  opener.addEventListener("click", () => sheet.showModal());

  document.addEventListener("keydown", (event) => {
    if (!on.checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) {
      return;
    }
    if (event.defaultPrevented || document.querySelector("dialog[open]") || takesKeys(event.target, event.key)) {
      return;
    }
    const keys = first && event.timeStamp - firstAt < FIRST_KEY_COUNTS ? `${first} ${event.key}` : event.key;
    first = event.key === "g" ? "g" : "";
    firstAt = event.timeStamp;
    if (act(keys)) {
      event.preventDefault();
      first = "";
    }
  });

  function takesKeys(element, key) {
    if (element.closest("input, select, textarea, [contenteditable]")) {
      return true;
    }
    return key.startsWith("Arrow") && element.closest(".scroll, [role=group]"); /* arrows move what can be scrolled */
  }

  function act(keys) {
    if (keys === "?") {
      sheet.showModal();
      return true;
    }
    if (keys === "/") {
      const filter = document.querySelector("main :is(.bar summary, [role=search] input:not([type=hidden]))");
      filter?.focus();
      return Boolean(filter);
    }
    const link = {
      ArrowLeft: document.querySelector("main a[rel=prev]"),
      ArrowRight: document.querySelector("main a[rel=next]"),
    }[keys] ?? sheet.querySelector(`[data-keys="${CSS.escape(keys)}"]`);
    link?.click();
    return Boolean(link);
  }
})();
