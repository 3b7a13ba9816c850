"use strict";
/* The table of images: sorted by any column, filtered, shown page by page; and each image large, with its outlines.
   Every text goes into the page as text: a name that looks like mark-up stays a name. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns, rows = data.rows;
  const place = Object.fromEntries(columns.map((column, i) => [column.key, i]));
  const picturePlace = columns.length, lead = place[data.lead];
  const inTable = columns.filter((column) => !column.detail);
  const withPictures = rows.some((row) => row[picturePlace]);
  const withTruth = rows.some((row) => row[picturePlace] && row[picturePlace][4] !== null);
  const collator = new Intl.Collator("en", { numeric: true });
  const SVG = "http://www.w3.org/2000/svg";
  const state = { key: data.sort[0], falling: data.sort[1], page: 0, size: 25, rows: rows.slice() };

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  function number(value, digits) {
    const written = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return written.replace("-", "−");
  }

  function text(column, value) {
    if (value === null) return "–";
    return column.kind === "number" ? number(value, column.digits) : value.replaceAll("_", " ");
  }

  /* A path's folders are written small, so that names can be told apart. */
  function parts(name) {
    const end = name.lastIndexOf("/") + 1;
    return [...(end ? [make("small", {}, name.slice(0, end))] : []), make("span", {}, name.slice(end))];
  }

  function shown(column, row) {
    const value = row[place[column.key]];
    return column.kind === "text" ? value : text(column, value);
  }

  /* ---- pictures ---- */

  function drawing(picture, name) {
    const [source, width, height, found, truth] = picture;
    const box = make("div", { class: "picture" });
    box.style.setProperty("--aspect", width / height);
    if (source) box.append(make("img", { src: source, width, height, alt: name }));
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of [["viewBox", `0 0 ${width} ${height}`], ["width", width], ["height", height]]) {
      svg.setAttribute(key, value);
    }
    svg.setAttribute("aria-hidden", "true");
    for (const [kind, path] of [["truth", truth], ["pred", found]]) {
      if (!path) continue;
      const group = svg.appendChild(document.createElementNS(SVG, "g"));
      group.setAttribute("class", kind);
      for (const under of [true, false]) {
        const line = group.appendChild(document.createElementNS(SVG, "path"));
        line.setAttribute("d", path);
        if (under) line.setAttribute("class", "under");
      }
    }
    box.append(svg);
    return box;
  }

  /* ---- one image, large ---- */

  const large = make("dialog", { id: "large", "aria-labelledby": "large-name" });
  const step = (by) => () => show(current + by);
  const before = make("button", { type: "button", onclick: step(-1) }, "← previous");
  const after = make("button", { type: "button", onclick: step(1) }, "next →");
  const shut = make("button", { type: "button", onclick: () => large.close() }, "close");
  const content = make("div", { class: "large" });
  const title = make("h2", { id: "large-name" });
  large.append(make("div", { class: "bar" }, before, after, shut, ...switches()), title, content);
  document.body.append(large);
  let current = 0;

  large.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: step(-1), ArrowRight: step(1), t: flip("truth"), p: flip("pred") }[event.key];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) { act(); event.preventDefault(); }
  });
  large.addEventListener("close", () => {
    if (current < state.page * state.size || current >= (state.page + 1) * state.size) {
      state.page = Math.floor(current / state.size);
      fill();
    }
    body.querySelector(`[data-place="${current}"] button`)?.focus();
  });

  function show(which) {
    if (which < 0 || which >= state.rows.length) return;
    current = which;
    const row = state.rows[which], name = row[place.name];
    before.disabled = which === 0;
    after.disabled = which === state.rows.length - 1;
    title.textContent = name;
    const facts = columns.filter((column) => column.key !== "name").map((column) =>
      make("div", { title: column.words }, make("dt", {}, column.label), make("dd", {}, shown(column, row))));
    const picture = row[picturePlace];
    content.replaceChildren(
      picture ? drawing(picture, name) : make("p", {}, "No picture of this image is in the report."),
      make("dl", {}, ...facts),
    );
    if (!large.open) large.showModal();
  }

  /* Both outlines can be hidden, so that what lies below them is seen. */
  function flip(kind) {
    return () => {
      const hidden = document.body.classList.toggle(`without-${kind}`);
      for (const box of document.querySelectorAll(`input[data-line="${kind}"]`)) box.checked = !hidden;
    };
  }

  function switches() {
    if (!withPictures) return [];
    const kinds = withTruth ? [["truth", "truth (t)"], ["pred", "prediction (p)"]] : [["pred", "outline (p)"]];
    return kinds.map(([kind, words]) =>
      make("label", {}, make("input", { type: "checkbox", checked: true, "data-line": kind, onchange: flip(kind) }), words));
  }

  /* ---- filters ---- */

  const search = make("input", { type: "search", id: "search", oninput: later(apply) });
  const choices = columns.filter((column) => column.kind === "choice").map((column) => {
    const values = [...new Set(rows.map((row) => row[place[column.key]]))].sort();
    const select = make("select", { id: `only-${column.key}`, onchange: apply }, make("option", { value: "" }, "all"),
      ...values.map((value) => make("option", { value }, text(column, value))));
    return { column, select };
  });
  const numbers = columns.filter((column) => column.kind === "number");
  const ranged = make("select", { id: "ranged", onchange: apply },
    ...numbers.map((column) => make("option", { value: column.key }, column.label)));
  ranged.value = data.lead;
  const least = make("input", { type: "number", step: "any", id: "least", "aria-label": "from", oninput: later(apply) });
  const most = make("input", { type: "number", step: "any", id: "most", "aria-label": "to", oninput: later(apply) });
  const reset = make("button", { type: "button", id: "reset", onclick: () => {
    for (const control of [search, least, most, ...choices.map((choice) => choice.select)]) control.value = "";
    apply();
  } }, "show all");

  function later(action) {
    let timer;
    return () => { clearTimeout(timer); timer = setTimeout(action, 120); };
  }

  function apply() {
    const part = search.value.toLowerCase();
    const low = least.value === "" ? -Infinity : Number(least.value);
    const high = most.value === "" ? Infinity : Number(most.value);
    const bounded = least.value !== "" || most.value !== "", measured = place[ranged.value];
    const wanted = choices.filter((choice) => choice.select.value).map((choice) =>
      [place[choice.column.key], choice.select.value]);
    state.rows = rows.filter((row) => {
      const name = row[place.name].toLowerCase(), value = row[measured];
      return name.includes(part) && wanted.every(([i, kind]) => row[i] === kind)
        && (!bounded || (value !== null && value >= low && value <= high));
    });
    sort();
  }

  /* ---- sorting: what is undefined comes last, whichever way; equal values keep the file's order ---- */

  const first = new Map(rows.map((row, i) => [row, i]));

  function sort() {
    const i = place[state.key], sign = state.falling ? -1 : 1;
    const compare = columns[i].kind === "number" ? (a, b) => a - b : collator.compare;
    state.rows.sort((a, b) => {
      if (a[i] === null || b[i] === null) return (a[i] === null) - (b[i] === null) || first.get(a) - first.get(b);
      return sign * compare(a[i], b[i]) || first.get(a) - first.get(b);
    });
    state.page = 0;
    fill();
  }

  function sortBy(column) {
    state.falling = state.key === column.key ? !state.falling : column.rising === false;
    state.key = column.key;
    sort();
  }

  const heads = inTable.map((column) => {
    const button = make("button", { type: "button", title: column.words, onclick: () => sortBy(column) }, column.label);
    return make("th", { scope: "col", class: column.kind === "number" ? "figure" : null, "data-key": column.key }, button,
      make("span", { class: "printed", "aria-hidden": true }, column.label));
  });

  /* ---- the table, one page of it at a time ---- */

  const body = make("tbody"), told = make("p", { role: "status", id: "told" }), where = make("span", { id: "where" });
  const turn = (to) => () => { state.page = to(state.page); fill(); };
  const last = () => Math.max(0, Math.ceil(state.rows.length / state.size) - 1);
  const back = ["« first", "‹ previous"].map((words, i) =>
    make("button", { type: "button", onclick: turn((page) => i * (page - 1)) }, words));
  const forth = ["next ›", "last »"].map((words, i) =>
    make("button", { type: "button", onclick: turn((page) => i ? last() : page + 1) }, words));
  const size = make("select", { id: "size", onchange: () => { state.size = Number(size.value); state.page = 0; fill(); } },
    ...[25, 50, 100, 500].map((count) => make("option", { value: count }, String(count))));

  function fill() {
    const start = state.page * state.size, some = state.rows.slice(start, start + state.size);
    body.replaceChildren(...some.map((row, i) => line(row, start + i)));
    for (const head of heads) {
      const sorted = head.dataset.key === state.key;
      if (sorted) head.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    for (const button of back) button.disabled = state.page === 0;
    for (const button of forth) button.disabled = state.page >= last();
    where.textContent = state.rows.length
      ? `rows ${number(start + 1, 0)} to ${number(start + some.length, 0)} of ${number(state.rows.length, 0)}` : "no row";
    tell();
  }

  function tell() {
    const values = state.rows.map((row) => row[lead]).filter((value) => value !== null);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const few = state.rows.length < rows.length;
    told.textContent = `${number(state.rows.length, 0)} of ${number(rows.length, 0)} images`
      + (few && values.length ? `; their mean ${columns[lead].label} is ${number(mean, columns[lead].digits)}` : "");
  }

  function line(row, which) {
    const name = row[place.name], picture = row[picturePlace];
    const cells = inTable.filter((column) => column.key !== "name").map((column) =>
      make("td", column.kind === "number" ? { class: "figure" } : {}, shown(column, row)));
    const open = () => show(which);
    const opener = make("button", { type: "button", class: "name", onclick: open, title: "show large" }, ...parts(name));
    const small = withPictures ? [make("td", { class: "small", onclick: open }, picture ? drawing(picture, "") : "")] : [];
    return make("tr", { "data-place": which }, ...small, make("th", { scope: "row" }, opener), ...cells);
  }

  const labelled = (words, ...controls) => make("label", {}, words, ...controls);
  const picked = choices.map(({ column, select }) => labelled(column.label, select));
  const head = make("tr", {}, ...(withPictures ? [make("th", { scope: "col", class: "plain" }, "picture")] : []), ...heads);
  document.getElementById("table").append(
    make("form", { class: "bar", onsubmit: (event) => event.preventDefault() },
      labelled("name holds", search), ...picked,
      make("span", { class: "range" }, labelled("where", ranged), " from ", least, " to ", most), reset, ...switches()),
    told,
    make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of images" },
      make("table", { class: "rows" }, make("thead", {}, head), body)),
    make("nav", { class: "bar", "aria-label": "Pages of the table" }, ...back, where, ...forth, labelled("rows", size)),
  );
  fill();
})();
