"use strict";

(() => {
  /* A button that waits can still be focused, so that the keyboard keeps its place; it only does nothing. */
  document.addEventListener("click", (event) => {
    if (event.target.closest('[aria-disabled="true"]')) {
      event.preventDefault();
      event.stopPropagation();
    }
  }, true);

  /* A form that asks a provider takes seconds: send it once. */
  document.addEventListener("submit", (event) => {
    if (event.target.matches("form[data-once]") && !event.defaultPrevented) {
      setOnce(event.target, "true");
    }
  });
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-once]").forEach((form) => setOnce(form, null));
  });

  /* Back restores a page as it was, also after a log-out, and no header prevents that. So a page for somebody who is
     not signed in leaves a mark, and a page that was loaded before the mark is loaded anew when it is restored. */
  const mark = "signed-out";
  if (!document.body.classList.contains("signed-in")) {
    keep("localStorage", mark, Date.now());
  }
  const marked = kept("localStorage", mark);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && kept("localStorage", mark) !== marked) {
      document.documentElement.hidden = true;
      window.location.reload();
    }
  });

  /* What Test Connection found is about the key that was tested. */
  document.addEventListener("input", ({ target }) => {
    if (target.name === "api_key") {
      document.getElementById("test-result")?.replaceChildren();
    }
  });

  /* A browser can be told to keep nothing; reading and writing then throws. */
  function keep(storage, name, value) {
    try {
      window[storage].setItem(name, value);
    } catch {
      return;
    }
  }

  function kept(storage, name) {
    try {
      return window[storage].getItem(name);
    } catch {
      return null;
    }
  }

  function setOnce(form, value) {
    for (const button of form.querySelectorAll("button[type=submit]")) {
      if (value) {
        button.setAttribute("aria-disabled", value);
      } else {
        button.removeAttribute("aria-disabled");
      }
    }
  }

  /* htmx swaps in whatever comes. Take only what was asked for: not the login page, and not an error page. */
  document.addEventListener("htmx:before:swap", (event) => {
    const response = event.detail.ctx.response;
    if (response.raw.redirected || [400, 401, 403, 404].includes(response.status)) {
      event.preventDefault();
      window.location.reload();
    } else if (response.status >= 400 && response.status !== 422) {
      event.preventDefault();
      notice({
        429: "Too many attempts. Wait a minute, then try again.",
        507: "The disk of this Grafient is full. Nothing new can be stored until there is room.",
      }[response.status] ?? "Something went wrong. Grafient's log says what; try again in a moment.");
    } else {
      notice("");
    }
  });
  document.addEventListener("htmx:error", () => {
    notice("Grafient is not responding. This page may be out of date.");
  });

  function notice(text) {
    const element = document.getElementById("notice");
    element.textContent = text;
    element.hidden = !text;
  }

  /* Moments are UTC; whoever points at one is told their own time. */
  document.addEventListener("pointerover", ({ target }) => {
    const time = target.closest("time[datetime*=T]");
    if (time) {
      const own = new Date(time.dateTime).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "long" });
      time.title = `${own}, your time`;
    }
  });

  /* Where the menu scrolls sideways, the page that one is on is in view. */
  document.addEventListener("DOMContentLoaded", () => {
    const here = document.querySelector(".nav [aria-current]");
    const list = here?.closest("ul");
    if (list && list.scrollWidth > list.clientWidth) {
      list.scrollLeft = here.offsetLeft - list.offsetLeft - (list.clientWidth - here.offsetWidth) / 2;
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelector('[aria-invalid="true"], .form > [role=alert], .result:has(.result-bad)')?.focus();
  });

  /* An address has no empty parameters. */
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "get" && !event.defaultPrevented) {
      event.preventDefault();
      const address = new URL(form.action);
      address.search = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
      window.location.assign(address);
    }
  });

  /* The filter bar: its panels close with Escape and by a click elsewhere. What is chosen in a form[data-apply] applies
     by itself, a moment after the last change or when its panel closes. The page that then comes has the same panels
     open, the focus where it was, and is scrolled as far. */
  const MOMENT = 900;
  const MANY = 12;
  const PLACE = "place";
  const waiting = new Map(); /* forms, and the timers that will send them */

  function apply(form) {
    clearTimeout(waiting.get(form));
    waiting.delete(form);
    if (form.checkValidity()) {
      const bar = form.closest(".bar");
      const focused = document.activeElement;
      leave({
        open: [...bar.querySelectorAll("details")].map((one) => one.open),
        name: focused.name,
        value: focused.type === "checkbox" ? focused.value : null,
        summary: [...bar.querySelectorAll("summary")].indexOf(focused),
        scrolled: [...bar.querySelectorAll(".pick-options")].map((one) => one.scrollTop),
      });
      form.requestSubmit();
    }
  }

  function leave(place) {
    const here = { path: window.location.pathname, top: window.scrollY };
    keep("sessionStorage", PLACE, JSON.stringify({ ...here, ...place }));
  }

  /* A switch of what a chart or a table shows leads to the same page, so that too has the focus where it was; without
     JavaScript, the fragment of its address leads back to the chart. */
  document.addEventListener("click", (event) => {
    const link = event.target.closest("main nav:not(.pages) .segments a");
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (link?.hash && plain && link.pathname === window.location.pathname) {
      link.hash = "";
      leave({ nav: link.closest("nav").getAttribute("aria-label"), text: link.textContent });
    }
  });

  function isReady(form) {
    const days = [...form.querySelectorAll('[type="date"]')];
    return days.every((day) => day.value !== day.defaultValue && day.validity.valid);
  }

  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form?.matches("[data-apply]") && event.target.name) {
      clearTimeout(waiting.get(form));
      waiting.set(form, isReady(form) ? setTimeout(apply, MOMENT, form) : 0);
    }
  });

  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.(".pick") && !event.target.open) {
      for (const form of waiting.keys()) {
        if (form.contains(event.target) || event.target.contains(form)) {
          apply(form);
        }
      }
    }
  }, true);

  document.addEventListener("click", (event) => {
    for (const pick of document.querySelectorAll(".pick[open]")) {
      pick.open = pick.contains(event.target);
    }
  });

  document.addEventListener("focusout", (event) => {
    const pick = event.target.closest(".pick[open]");
    if (pick && event.relatedTarget && !pick.contains(event.relatedTarget)) {
      pick.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    const pick = event.target.closest?.(".pick[open]");
    if (event.key === "Escape" && pick && !(event.target.type === "search" && event.target.value)) {
      pick.open = false;
      pick.querySelector("summary").focus();
    }
  });

  /* A page that is gone back to shows what its figures are of, not what was chosen when it was left. */
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      document.querySelectorAll("form[data-apply]").forEach((form) => form.reset());
    }
  });

  /* A long list of options can be narrowed; the field has no name, so it is no part of the form. */
  document.addEventListener("DOMContentLoaded", () => {
    for (const list of document.querySelectorAll(".pick-options")) {
      const options = [...list.querySelectorAll("label")];
      if (options.length > MANY) {
        const find = document.createElement("input");
        Object.assign(find, { type: "search", placeholder: "Find", autocomplete: "off", spellcheck: false });
        find.setAttribute("aria-label", `Find in ${list.closest(".pick").querySelector("legend").textContent}`);
        find.addEventListener("input", () => {
          const text = find.value.trim().toLowerCase();
          options.forEach((option) => (option.hidden = !option.textContent.toLowerCase().includes(text)));
        });
        find.addEventListener("keydown", (event) => {
          if (event.key === "Enter") {
            event.preventDefault();
          }
        });
        list.before(find);
      }
    }
    const place = JSON.parse(kept("sessionStorage", PLACE) ?? "null");
    keep("sessionStorage", PLACE, "null");
    if (place?.path === window.location.pathname) {
      const bar = document.querySelector(".bar");
      const focused = place.nav ? linkAt(place) : bar && fieldAt(place, bar);
      window.scrollTo(0, place.top);
      focused?.focus({ preventScroll: true });
    }
  });

  function linkAt({ nav, text }) {
    const links = [...document.querySelectorAll("main .segments a")];
    return links.find((one) => one.textContent === text && one.closest("nav").getAttribute("aria-label") === nav);
  }

  function fieldAt(place, bar) {
    bar.querySelectorAll("details").forEach((one, index) => (one.open = place.open[index] ?? false));
    bar.querySelectorAll(".pick-options").forEach((one, index) => (one.scrollTop = place.scrolled[index] ?? 0));
    const fields = [...bar.querySelectorAll('input:not([type="hidden"])')].filter((one) => one.name === place.name);
    const field = place.name && fields.find((one) => place.value === null || one.value === place.value);
    return field || bar.querySelectorAll("summary")[place.summary];
  }
})();
