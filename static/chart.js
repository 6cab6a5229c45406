"use strict";

/* Charts are drawn from the table below them: one source of figures. A table[data-chart] names its canvas; both are in
   one .chart-panel, with a .chart around the canvas that takes the focus, and a .chart-readout.

   Columns of the table: day (a th with its first and last day, and a link), total, state, and a column for each series.
   A table with data-view="cumulative" is drawn as lines, the others as stacked bars. */

(() => {
  const TOTAL = 1;
  const STATE = 2;
  const FIRST_SERIES = 3;
  const MOST_PARTS = 3; /* said of a bar, the biggest first */
  const MOST_APART = 120; /* bars with room for a line between them */
  const DRAGGED = { mouse: 6, pen: 12, touch: 24 }; /* pixels; a hand moves as far in a click, a finger in a tap */
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

  const charts = new Map(); /* by wrapper */

  function drawCharts() {
    for (const [wrapper, chart] of charts) {
      chart.end();
      charts.delete(wrapper);
    }
    for (const table of document.querySelectorAll("table[data-chart]")) {
      const canvas = document.getElementById(table.dataset.chart);
      if (canvas && window.Chart) {
        const wrapper = canvas.closest(".chart");
        charts.set(wrapper, new TableChart(wrapper, canvas, table));
      }
    }
  }

  document.addEventListener("DOMContentLoaded", drawCharts);
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.target.querySelector?.("table[data-chart]")) {
      drawCharts();
    }
  });
  document.addEventListener("themechange", drawCharts); /* see theme.js */

  class TableChart {
    constructor(wrapper, canvas, table) {
      this.wrapper = wrapper;
      this.readout = wrapper.closest(".chart-panel").querySelector(".chart-readout");
      this.table = table;
      this.rows = [...table.tBodies[0].rows].map(read);
      this.heads = [...table.tHead.rows[0].cells].slice(FIRST_SERIES);
      this.cursor = null; /* the bar that is read out */
      this.anchor = null; /* the other end of a period that is being picked */
      this.drawn = table.dataset.view === "cumulative" ? lines(this, canvas) : bars(this, canvas);
      this.listening = new AbortController();
      this.listen();
    }

    end() {
      this.listening.abort();
      this.drawn.destroy();
    }

    listen() {
      const on = (name, handle) => {
        this.wrapper.addEventListener(name, (event) => handle(event), { signal: this.listening.signal });
      };
      let pressed = null; /* where a pointer went down, and whether it has moved since */
      let tapped = null; /* what a finger read out, so that the next tap opens it */
      on("pointerdown", (event) => {
        if (event.button === 0 && event.isPrimary) {
          pressed = { x: event.clientX, index: this.indexAt(event), dragged: false };
        }
      });
      on("pointermove", (event) => {
        const index = this.indexAt(event);
        if (!event.buttons) {
          pressed = null; /* it was let go elsewhere */
        }
        const far = pressed && Math.abs(event.clientX - pressed.x) > DRAGGED[event.pointerType || "mouse"];
        if (pressed && (pressed.dragged || far)) {
          if (!pressed.dragged) {
            pressed.dragged = true;
            this.wrapper.setPointerCapture(event.pointerId);
          }
          if (!pressed.cancelled) {
            this.show(index, pressed.index);
          }
        } else if (!pressed && event.pointerType !== "touch") {
          this.show(index);
        }
      });
      on("pointerup", (event) => {
        const was = pressed;
        pressed = null;
        if (!was || was.cancelled) {
          return;
        }
        if (was.dragged) {
          this.open();
        } else if (event.pointerType === "touch" && tapped !== was.index) {
          tapped = was.index;
          this.show(was.index);
        } else {
          this.show(was.index);
          this.open(event);
        }
      });
      on("pointercancel", () => {
        pressed = null;
        this.show(null);
      });
      on("pointerleave", (event) => {
        if (event.pointerType !== "touch" && !pressed && !this.wrapper.matches(":focus-visible")) {
          this.show(null);
        }
      });
      on("focusout", () => {
        tapped = null;
        if (!pressed) {
          this.show(null);
        }
      });
      on("keydown", (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey) {
          return;
        }
        const last = this.rows.length - 1;
        const next = {
          ArrowLeft: this.cursor === null ? last : Math.max(this.cursor - 1, 0),
          ArrowRight: this.cursor === null ? 0 : Math.min(this.cursor + 1, last),
          Home: 0,
          End: last,
        }[event.key];
        if (next !== undefined) {
          event.preventDefault();
          this.show(next, event.shiftKey ? (this.anchor ?? this.cursor ?? next) : null);
        } else if (event.key === "Enter" && this.cursor !== null) {
          event.preventDefault();
          this.open(event);
        } else if (event.key === "Escape" && this.cursor !== null) {
          event.preventDefault();
          if (pressed) {
            pressed.cancelled = true;
          }
          this.show(this.anchor === null || pressed ? null : this.cursor);
        }
      });
    }

    indexAt(event) {
      const { left, right } = this.drawn.chartArea;
      const x = event.clientX - this.drawn.canvas.getBoundingClientRect().left;
      const index = this.table.dataset.view === "cumulative"
        ? Math.round(((x - left) / (right - left)) * (this.rows.length - 1))
        : Math.floor(((x - left) / (right - left)) * this.rows.length);
      return Math.min(Math.max(index, 0), this.rows.length - 1);
    }

    show(cursor, anchor = null) {
      if (cursor === this.cursor && anchor === this.anchor) {
        return;
      }
      this.cursor = cursor;
      this.anchor = anchor;
      this.readout.replaceChildren(...(cursor === null ? [] : anchor === null ? this.told(cursor) : this.picked()));
      this.drawn.draw();
    }

    /* The address of what is shown: a bar's own, or that of the days that were picked. */
    open(event) {
      if (this.anchor === null) {
        const link = this.rows[this.cursor].link;
        const { ctrlKey = false, metaKey = false, shiftKey = false } = event ?? {};
        link?.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, ctrlKey, metaKey, shiftKey }));
        return;
      }
      const [first, last] = this.range();
      const address = new URL(this.table.dataset.range, window.location.href);
      address.searchParams.set("from", first);
      address.searchParams.set("to", last);
      window.location.assign(address);
    }

    range() {
      const days = this.rows.slice(Math.min(this.anchor, this.cursor), Math.max(this.anchor, this.cursor) + 1);
      const dated = days.filter((row) => row.first);
      const ends = dated.length ? dated : [this.rows.findLast((row) => row.first)];
      return [ends[0].first, ends.at(-1).last];
    }

    picked() {
      const [first, last] = this.range();
      const days = (Date.parse(last) - Date.parse(first)) / 86400000 + 1;
      const key = this.wrapper.matches(":focus-visible") ? ". Enter shows them, Escape cancels." : ". Escape cancels.";
      return [strong(written(first, last)), ` ${days} ${days === 1 ? "day" : "days"}${key}`];
    }

    told(index) {
      const row = this.rows[index];
      if (this.table.dataset.view === "cumulative") {
        const now = row.first ? [strong(row.name), ` ${row.state}, so far `, strong(row.total)] : [strong(row.name)];
        const by = index === 0 ? "on its first day" : `in its first ${index + 1} days`;
        return [...now, ...this.heads.flatMap((head, at) => part(head, row.texts[at], ` ${by}`))];
      }
      const found = [strong(row.name), ` ${row.state} `, strong(row.total)];
      const named = this.heads.map((head, at) => ({ head, value: row.values[at], text: row.texts[at] }));
      const known = named.filter((one) => one.value).sort((a, b) => b.value - a.value);
      const unknown = row.missing === 1 ? [] : named.filter((one) => one.value === null);
      found.push(...known.slice(0, MOST_PARTS).flatMap((one) => part(one.head, one.text)));
      if (known.length > MOST_PARTS) {
        found.push(part(null, `and ${known.length - MOST_PARTS} more`)[0]);
      }
      if (unknown.length) {
        found.push(part(null, `${unknown.length} of ${named.length} unknown`)[0]);
      }
      return found;
    }
  }

  function read(row) {
    const head = row.cells[0];
    const value = (cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value));
    const series = [...row.cells].slice(FIRST_SERIES);
    const { state, missing, asked } = row.dataset;
    return {
      state: row.cells[STATE].textContent.trim(),
      isProvisional: state === "provisional",
      isRestated: state === "restated",
      /* How much of it is unknown: all, some integrations or days, or only how much in all. */
      missing: state === "missing" ? 1 : state === "partial" ? Number(missing) / Number(asked) : 0,
      name: head.textContent.trim(),
      first: head.dataset.first,
      last: head.dataset.last,
      link: head.querySelector("a"),
      total: row.cells[TOTAL].textContent.trim(),
      amount: value(row.cells[TOTAL]),
      values: series.map(value),
      texts: series.map((cell) => cell.textContent.trim()),
    };
  }

  function strong(text) {
    const element = document.createElement("strong");
    element.textContent = text;
    return element;
  }

  function part(head, text, more = "") {
    const element = document.createElement("span");
    element.className = "chart-part";
    if (head) {
      const swatch = document.createElement("span");
      swatch.className = `swatch swatch-${head.dataset.series}`;
      const name = document.createElement("span");
      name.textContent = head.textContent.trim() + more;
      element.append(swatch, name, " ", strong(text));
    } else {
      element.append(text);
    }
    return [element, " "];
  }

  /* 1–30 Jun 2026, as the pages write it. */
  function written(first, last) {
    const [[year, month, day], [lastYear, lastMonth, lastDay]] = [first, last].map((one) => one.split("-").map(Number));
    const end = `${lastDay} ${MONTHS[lastMonth - 1]} ${lastYear}`;
    if (first === last) {
      return end;
    }
    if (year !== lastYear) {
      return `${day} ${MONTHS[month - 1]} ${year} – ${end}`;
    }
    return month === lastMonth ? `${day}–${end}` : `${day} ${MONTHS[month - 1]} – ${end}`;
  }

  function tick(row, step, isFirst) {
    if (!row.first) {
      return "";
    }
    const [year, month, day] = row.first.split("-").map(Number);
    if (step === "month") {
      return isFirst || month === 1 ? `${MONTHS[month - 1]} ${year}` : MONTHS[month - 1];
    }
    return `${day} ${MONTHS[month - 1]}`;
  }

  function palette() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    if (!window.matchMedia("(forced-colors: active)").matches) {
      return colour;
    }
    const { color, backgroundColor } = getComputedStyle(document.body);
    const faint = "rgb(128 128 128 / 55%)";
    const strong = { ink: color, muted: color, edge: color, accent: color };
    const forced = { page: backgroundColor, ...strong, line: faint, "accent-soft": faint };
    return (name) => forced[name] ?? colour(name);
  }

  function bars(chart, canvas) {
    const { rows, heads } = chart;
    const colour = palette();
    const apart = rows.length <= MOST_APART;
    const datasets = heads.map((head, at) => {
      const fill = colour(`series-${head.dataset.series}`);
      const stripes = hatching(canvas.getContext("2d"), fill, { width: 2.5, on: colour("page") });
      return {
        label: head.textContent,
        data: rows.map((row) => row.values[at]),
        backgroundColor: rows.map((row) => (row.isProvisional ? stripes : fill)),
        borderColor: rows.map((row) => (row.isProvisional ? fill : colour("page"))),
        /* A line between the parts, so that two that look alike are two. */
        borderWidth: ({ dataIndex }) => (apart ? (rows[dataIndex].isProvisional ? 1 : { top: 1 }) : 0),
        borderSkipped: false,
        barPercentage: 1,
        categoryPercentage: apart ? 0.82 : 1,
      };
    });
    return drawn(chart, canvas, "bar", datasets, colour, true);
  }

  function lines(chart, canvas) {
    const { rows, heads } = chart;
    const colour = palette();
    const line = (head, data, borderColor, borderWidth) => ({
      label: head,
      data,
      borderColor,
      borderWidth,
      pointRadius: data.filter((value) => value !== null).length === 1 ? 3 : 0,
      pointBackgroundColor: borderColor,
      spanGaps: false,
    });
    const now = line("", rows.map((row) => row.amount), colour("accent"), 2.5);
    const others = heads.map((head, at) =>
      line(head.textContent, rows.map((row) => row.values[at]), colour("series-other"), 1.25));
    return drawn(chart, canvas, "line", [now, ...others], colour, false);
  }

  function drawn(chart, canvas, type, datasets, colour, stacked) {
    const { rows, table } = chart;
    const number = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4, notation: "compact" });
    const money = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
    const isMoney = table.dataset.measure === "usd";
    const size = Math.min(Math.max(window.innerWidth / 64, 11), 12);
    Object.assign(window.Chart.defaults.font, { family: getComputedStyle(document.body).fontFamily, size });
    return new window.Chart(canvas, {
      type,
      data: { labels: rows.map((row) => row.name), datasets },
      plugins: [marks(chart, colour)],
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        events: [],
        layout: { padding: { top: 10 } },
        scales: {
          x: {
            stacked,
            grid: { display: false },
            border: { color: colour("edge") },
            ticks: {
              color: colour("muted"),
              maxRotation: 0,
              autoSkipPadding: 16,
              callback: (_, index) => tick(rows[index], table.dataset.step, index === 0),
            },
          },
          y: {
            stacked,
            beginAtZero: true,
            border: { display: false },
            grid: { color: colour("line") },
            ticks: {
              color: colour("muted"),
              maxTicksLimit: 5,
              callback: (amount) => {
                const text = isMoney ? `$${money.format(Math.abs(amount))}` : number.format(Math.abs(amount));
                return amount < 0 ? `−${text}` : text;
              },
            },
          },
        },
        plugins: { legend: { display: false }, tooltip: { enabled: false } },
      },
    });
  }

  /* Bars of provisional days are hatched in their series' colours.
     Behind the bars: what is read out, or picked. Days that are missing are hatched grey; of days that are missing for
     some of the integrations, as large a part from the top as these are of all; and all of a bar whose total is unknown.
     On top of a restated day: a diamond. */
  function marks(chart, colour) {
    const { rows, table } = chart;
    const isLine = table.dataset.view === "cumulative";

    function column(scales, index) {
      const step = isLine ? scales.x.width / Math.max(rows.length - 1, 1) : scales.x.width / rows.length;
      return [scales.x.getPixelForValue(index) - step / 2, step];
    }

    return {
      id: "marks",
      beforeDatasetsDraw({ ctx, chartArea, scales }) {
        ctx.save();
        if (chart.cursor !== null) {
          const ends = [chart.cursor, chart.anchor ?? chart.cursor].sort((a, b) => a - b);
          const [left] = column(scales, ends[0]);
          const [right, step] = column(scales, ends[1]);
          ctx.fillStyle = chart.anchor === null ? colour("line") : colour("accent-soft");
          if (isLine && chart.anchor === null) {
            ctx.fillRect(scales.x.getPixelForValue(chart.cursor) - 0.5, chartArea.top, 1, chartArea.height);
          } else {
            ctx.fillRect(left, chartArea.top, right + step - left, chartArea.height);
          }
          ctx.strokeStyle = colour("accent");
          if (chart.anchor !== null) {
            ctx.strokeRect(left + 0.5, chartArea.top + 0.5, right + step - left - 1, chartArea.height - 1);
          }
        }
        ctx.fillStyle = hatching(ctx, colour("edge"));
        rows.forEach((row, index) => {
          const part = isLine ? 0 : row.missing || (row.amount === null ? 1 : 0);
          if (part > 0) {
            const [left, step] = column(scales, index);
            ctx.fillRect(left, chartArea.top, step, chartArea.height * part);
          }
        });
        ctx.restore();
      },
      afterDatasetsDraw({ ctx, scales }) {
        ctx.save();
        ctx.fillStyle = colour("ink");
        rows.forEach((row, index) => {
          const x = scales.x.getPixelForValue(index);
          if (isLine && index === chart.cursor) {
            for (const value of [row.amount, ...row.values].filter((one) => one !== null)) {
              ctx.beginPath();
              ctx.arc(x, scales.y.getPixelForValue(value), 3.5, 0, 2 * Math.PI);
              ctx.fill();
            }
          } else if (!isLine && row.isRestated) {
            const y = scales.y.getPixelForValue(Math.max(row.amount, 0)) - 6;
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
