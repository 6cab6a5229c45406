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
    localStorage.setItem(mark, Date.now());
  }
  const marked = localStorage.getItem(mark);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && localStorage.getItem(mark) !== marked) {
      document.documentElement.hidden = true;
      window.location.reload();
    }
  });

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

  /* The chart is drawn from the table below it: one source of figures. */
  function drawCharts() {
    for (const table of document.querySelectorAll("table[data-chart]")) {
      const canvas = document.getElementById(table.dataset.chart);
      if (canvas && window.Chart) {
        window.Chart.getChart(canvas)?.destroy();
        draw(canvas, table);
      }
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    drawCharts();
    document.querySelector('[aria-invalid="true"], .form > [role=alert], .result:has(.result-bad)')?.focus();
  });
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.target.querySelector?.("table[data-chart]")) {
      drawCharts();
    }
  });
  document.addEventListener("themechange", drawCharts);

  const FIRST_SERIES = 3; /* after day, state and total */

  function draw(canvas, table) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const rows = [...table.tBodies[0].rows];
    const states = rows.map((row) => row.dataset.state);
    const heads = [...table.tHead.rows[0].cells].slice(FIRST_SERIES);
    const value = (cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value));
    const narrow = rows.length > 120;

    const datasets = heads.map((head, index) => {
      const fill = colour(`series-${head.dataset.series}`);
      const stripes = hatching(canvas.getContext("2d"), fill, { width: 2.5, on: colour("page") });
      const fills = states.map((state) => (state === "provisional" ? stripes : fill));
      return {
        label: head.textContent,
        data: rows.map((row) => value(row.cells[FIRST_SERIES + index])),
        backgroundColor: fills,
        hoverBackgroundColor: fills,
        borderColor: states.map((state) => (state === "provisional" ? fill : colour("page"))),
        borderWidth: ({ dataIndex }) => (narrow ? 0 : states[dataIndex] === "provisional" ? 1 : { top: 1 }),
        borderSkipped: false,
        barPercentage: 1,
        categoryPercentage: narrow ? 1 : 0.82,
      };
    });

    Object.assign(window.Chart.defaults.font, { family: getComputedStyle(document.body).fontFamily, size: 12 });
    new window.Chart(canvas, {
      type: "bar",
      data: { labels: rows.map((row) => row.cells[0].textContent), datasets },
      plugins: [marks(states, rows.map(missingPart), rows.map((row) => value(row.cells[2])), colour("edge"), colour("ink"))],
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        layout: { padding: { top: 10 } },
        scales: {
          x: {
            stacked: true,
            grid: { display: false },
            border: { color: colour("edge") },
            ticks: {
              color: colour("muted"),
              maxRotation: 0,
              autoSkipPadding: 16,
              callback: (_, index) => rows[index].cells[0].textContent.replace(/ \d{4}$/, ""),
            },
          },
          y: {
            stacked: true,
            border: { display: false },
            grid: { color: colour("line") },
            ticks: {
              color: colour("muted"),
              maxTicksLimit: 5,
              callback: (amount) => `${amount < 0 ? "−" : ""}$${Math.abs(amount).toLocaleString("en-US", { maximumSignificantDigits: 4 })}`,
            },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            filter: (item) => item.raw !== 0 && item.raw !== null,
            itemSort: (a, b) => b.raw - a.raw,
            usePointStyle: false,
            boxPadding: 4,
            backgroundColor: colour("ink"),
            titleColor: colour("page"),
            bodyColor: colour("page"),
            footerColor: colour("page"),
            callbacks: {
              title: ([item]) => item && `${item.label}, ${rows[item.dataIndex].cells[1].textContent}`,
              label: (item) => ` ${item.dataset.label}: ${rows[item.dataIndex].cells[FIRST_SERIES + item.datasetIndex].textContent}`,
              footer: ([item]) => item && `Total: ${rows[item.dataIndex].cells[2].textContent}`,
            },
          },
        },
      },
    });
  }

  function missingPart(row) {
    if (row.dataset.state === "missing") {
      return 1;
    }
    return row.dataset.state === "partial" ? Number(row.dataset.missing) / Number(row.dataset.asked) : 0;
  }

  /* Bars of provisional days are hatched in their series' colours.
     Behind the bars: days that are missing are hatched grey; of days that are missing for some of the integrations, as
     large a part from the top as these are of all.
     On top of a restated day: a diamond. */
  function marks(states, parts, totals, hatch, ink) {
    return {
      id: "marks",
      beforeDatasetsDraw({ ctx, chartArea, scales }) {
        const step = scales.x.width / states.length;
        ctx.save();
        ctx.fillStyle = hatching(ctx, hatch);
        parts.forEach((part, index) => {
          if (part > 0) {
            const left = scales.x.getPixelForValue(index) - step / 2;
            ctx.fillRect(left, chartArea.top, step, chartArea.height * part);
          }
        });
        ctx.restore();
      },
      afterDatasetsDraw({ ctx, scales }) {
        ctx.save();
        ctx.fillStyle = ink;
        states.forEach((state, index) => {
          if (state === "restated") {
            const x = scales.x.getPixelForValue(index);
            const y = scales.y.getPixelForValue(Math.max(totals[index], 0)) - 6;
            ctx.beginPath();
            ctx.moveTo(x, y - 3.5);
            ctx.lineTo(x + 3.5, y);
            ctx.lineTo(x, y + 3.5);
            ctx.lineTo(x - 3.5, y);
            ctx.fill();
          }
        });
        ctx.restore();
      },
    };
  }

  function hatching(ctx, colour, { width = 1, on = null } = {}) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const pen = tile.getContext("2d");
    if (on) {
      pen.fillStyle = on;
      pen.fillRect(0, 0, 6, 6);
    } else {
      pen.globalAlpha = 0.7;
    }
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(-1, 1);
    pen.lineTo(1, -1);
    pen.moveTo(0, 6);
    pen.lineTo(6, 0);
    pen.moveTo(5, 7);
    pen.lineTo(7, 5);
    pen.stroke();
    return ctx.createPattern(tile, "repeat");
  }
})();
