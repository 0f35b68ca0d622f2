"use strict";
(() => {
  const PAGE_SIZE = 25; // items shown at once
  // name, label, and whether a row is shown
  const FILTERS = [
    ["broken", "Newly broken", (row) => row.change === "broken"],
    ["fixed", "Newly fixed", (row) => row.change === "fixed"],
    ["changed", "Changed", (row) => row.differs],
    ["failed", "Not answered", (row) => row.change === "failed"],
    ["wrong", "Wrong", (row) => row.faults.length > 0],
    ["all", "All", () => true],
  ];
  const CHANGE_LABELS = { broken: "newly broken", fixed: "newly fixed", failed: "not answered", wrong: "wrong", right: "right" };

  const byId = (id) => document.getElementById(id);
  const formatCount = (value) => value.toLocaleString("en");

  const data = JSON.parse(byId("data").textContent);
  const results = data.results.map((result) => ({
    ...result,
    rows: result.rows.map(([index, change, reply, faults, differs]) => {
      const [id, prompt, gold, old] = data.evalsets[result.evalset][index];
      return { id, prompt, gold, old, change, reply, faults, differs: Boolean(differs), searchText: "" };
    }),
  }));
  const state = { result: 0, filter: "all", fault: "", query: "", page: 0, matches: [] };

  // Invisible characters can be differences, so they are replaced by their code points; except the joiner of emoji (U+200D).
  const showInvisible = (text) => text.replace(/(?![\n\t\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (sign) => `\u27e8U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
  const makeElement = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = showInvisible(text);
    return element;
  };

  // A paragraph in which the characters that are not common are marked; name is the CSS class of the marks.
  function makeMarkedText(lines, name) {
    const paragraph = makeElement("p");
    if (lines.every((line) => !line.text.trim())) {
      paragraph.append(makeElement("span", "empty", "(empty)"));
      return paragraph;
    }
    lines.forEach((line, number) => {
      if (number) paragraph.append("\n");
      for (let from = 0, to; from < line.letters.length; from = to) {
        for (to = from; to < line.letters.length && line.mask[to] === line.mask[from]; ) to++;
        const text = showInvisible(line.letters.slice(from, to).join(""));
        paragraph.append(line.mask[from] ? text : makeElement("mark", name, text));
      }
    });
    return paragraph;
  }

  function makeReply(title, faults, body) {
    const element = makeElement("div", "reply");
    const heading = makeElement("h4", "", title);
    if (faults.length) heading.append(" ", makeElement("span", "", faults.join(", ")));
    element.append(heading, body);
    return element;
  }

  function makeItem(row) {
    const element = makeElement("article", "item");
    const head = makeElement("header");
    head.append(makeElement("h3", "", row.id), makeElement("span", `change ${row.change}`, CHANGE_LABELS[row.change]));
    const prompt = makeElement("details");
    prompt.append(makeElement("summary", "", row.prompt));
    const replies = makeElement("div", "replies");
    const [gold, reply] = compareLines(row.gold, row.reply);
    replies.append(makeReply("gold", [], makeMarkedText(gold, "missed")));
    if (row.old) replies.append(makeReply("baseline", row.old[1], makeMarkedText(compareLines(row.gold, row.old[0])[1], "off")));
    replies.append(makeReply("model", row.faults, row.change === "failed" ? makeElement("p", "empty", row.reply) : makeMarkedText(reply, "off")));
    element.append(head, prompt, replies);
    return element;
  }

  function drawPage() {
    const rows = state.matches;
    const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PAGE_SIZE;
    const shown = rows.slice(from, from + PAGE_SIZE);
    byId("items").replaceChildren(...(shown.length ? shown.map(makeItem) : [makeElement("p", "nothing", "No item matches.")]));
    byId("status").textContent = rows.length ? `${formatCount(from + 1)}\u2013${formatCount(from + shown.length)} of ${formatCount(rows.length)} items` : "0 items";
    byId("page").textContent = `${formatCount(state.page + 1)} / ${formatCount(pages)}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
  }

  function selectRows() {
    const isShown = FILTERS.find(([name]) => name === state.filter)[2];
    const query = state.query.trim().toLowerCase();
    state.matches = results[state.result].rows.filter((row) => {
      if (!isShown(row) || (state.fault && !row.faults.includes(state.fault))) return false;
      if (query && !row.searchText) row.searchText = [row.id, row.prompt, row.gold, row.reply, row.old ? row.old[0] : ""].join("\n").toLowerCase();
      return row.searchText.includes(query);
    });
    state.page = 0;
    drawPage();
  }

  function drawFilters() {
    const rows = results[state.result].rows;
    const buttons = FILTERS.map(([name, label, isShown]) => {
      const total = rows.filter(isShown).length;
      const applies = name === "all" || name === "wrong" || results[state.result].baseline !== null;
      if (name === "failed" ? !total : !applies) return null;
      const button = makeElement("button", "", label);
      button.type = "button";
      button.dataset.filter = name;
      button.append(makeElement("span", "", formatCount(total)));
      button.disabled = !total && name !== "all";
      button.addEventListener("click", () => {
        state.filter = name;
        markPressed();
        selectRows();
      });
      return button;
    });
    document.querySelector(".filters").replaceChildren(...buttons.filter(Boolean));
    const usable = [...document.querySelectorAll(".filters button:not(:disabled)")];
    if (!usable.some((button) => button.dataset.filter === state.filter)) state.filter = usable[0].dataset.filter;
    markPressed();
    const names = [...new Set(rows.flatMap((row) => row.faults))].sort();
    if (!names.includes(state.fault)) state.fault = "";
    const options = [new Option("any", ""), ...names.map((name) => new Option(showInvisible(name), name))];
    byId("fault").replaceChildren(...options);
    byId("fault").value = state.fault;
  }

  function markPressed() {
    for (const button of document.querySelectorAll(".filters button"))
      button.setAttribute("aria-pressed", String(button.dataset.filter === state.filter));
  }

  // Shows the figures and items of one result.
  function showResult(number) {
    state.result = number;
    if (results.length > 1) {
      document.querySelectorAll(".result").forEach((section) => (section.hidden = section.id !== `result-${number}`));
      document.querySelectorAll(".overview tbody tr").forEach((line) => {
        const chosen = line.querySelector("a").hash === `#result-${number}`;
        line.classList.toggle("chosen", chosen);
        chosen ? line.setAttribute("aria-current", "true") : line.removeAttribute("aria-current");
      });
    }
    const { model, baseline, name } = results[number];
    byId("items-of").textContent = showInvisible(`${model} on ${name}${baseline === null ? "" : `, beside ${baseline}`}`);
    drawFilters();
    selectRows();
  }

  // Index of the result in the address, such as #result-1; 0 without one.
  const resultInAddress = () => Math.min(Number((/^#result-(\d+)$/.exec(location.hash) || [0, 0])[1]), results.length - 1);

  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    byId("theme").textContent = name === "dark" ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
  }

  // Stores the name of a theme, if one is given; returns the stored name.
  function storedTheme(name) {
    try {
      if (name) localStorage.setItem("sftchat-theme", name);
      return localStorage.getItem("sftchat-theme");
    } catch {
      return null; // a sandboxed page has no storage
    }
  }

  function turnPage(step) {
    const before = state.page;
    state.page = Math.max(0, Math.min(before + step, Math.ceil(state.matches.length / PAGE_SIZE) - 1));
    if (state.page === before) return;
    drawPage();
    byId("status").scrollIntoView({ block: "center" });
  }

  setTheme(storedTheme() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(other);
    storedTheme(other);
  });
  if (!results.length) return;
  byId("explorer").hidden = false;
  byId("fault").addEventListener("change", (event) => {
    state.fault = event.target.value;
    selectRows();
  });
  let searchTimer = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(searchTimer);
    searchTimer = setTimeout(() => {
      state.query = event.target.value;
      selectRows();
    }, 60);
  });
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, [tabindex]")) return;
    if (event.key === "/") {
      event.preventDefault();
      byId("search").focus();
    } else if (event.key === "ArrowRight") turnPage(1);
    else if (event.key === "ArrowLeft") turnPage(-1);
  });
  addEventListener("hashchange", () => showResult(resultInAddress()));
  state.filter = FILTERS.find(([name, , isShown]) => name !== "fixed" && results[resultInAddress()].rows.some(isShown))?.[0] ?? "all";
  showResult(resultInAddress());
})();
