"use strict";

/* Light, dark, or as the system says. Runs before the page is painted, so that it never flashes in the other one. */
(() => {
  const root = document.documentElement;

  function chosen() {
    try {
      return ["light", "dark"].find((theme) => theme === localStorage.getItem("theme")) ?? "auto";
    } catch {
      return root.dataset.theme ?? "auto"; /* a browser that keeps nothing */
    }
  }

  function check(theme) {
    for (const radio of document.querySelectorAll("input[name=theme]")) {
      radio.checked = radio.value === theme;
    }
  }

  function show(theme) {
    if (theme === "auto") {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = theme;
    }
    check(theme);
    document.dispatchEvent(new Event("themechange"));
  }

  show(chosen());
  window.addEventListener("storage", () => show(chosen())); /* chosen in another tab */
  window.addEventListener("pageshow", (event) => event.persisted && show(chosen()));
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)", "print"]) {
    window.matchMedia(query).addEventListener("change", () => show(chosen()));
  }

  document.addEventListener("DOMContentLoaded", () => check(chosen()));
  document.addEventListener("change", (event) => {
    if (event.target.name === "theme") {
      try {
        localStorage.setItem("theme", event.target.value);
      } catch {
        /* shown all the same, until the next page */
      }
      show(event.target.value);
    }
  });
})();
