"use strict";
(() => {
  const PAGE = 25; // items drawn at once
  const FILTERS = [
    ["broken", "Newly broken", (row) => row.change === "broken"],
    ["fixed", "Newly fixed", (row) => row.change === "fixed"],
    ["changed", "Changed", (row) => row.differs],
    ["failed", "Not answered", (row) => row.change === "failed"],
    ["wrong", "Wrong", (row) => row.faults.length > 0],
    ["all", "All", () => true],
  ];
  const WORDS = { broken: "newly broken", fixed: "newly fixed", failed: "not answered", wrong: "wrong", right: "right" };

  const find = (id) => document.getElementById(id);
  const count = (value) => value.toLocaleString("en");

  const data = JSON.parse(find("data").textContent);
  const results = data.results.map((result) => ({
    ...result,
    rows: result.rows.map(([place, change, reply, faults, differs]) => {
      const [id, prompt, gold, old] = data.evalsets[result.evalset][place];
      return { id, prompt, gold, old, change, reply, faults, differs: Boolean(differs), words: "" };
    }),
  }));
  const state = { result: 0, filter: "all", fault: "", query: "", page: 0, matches: [] };

  // Invisible characters are differences too: they are shown by their code points, the joiner of emoji left in peace.
  const visible = (text) => text.replace(/(?![\n\t\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (sign) => `\u27e8U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = visible(text);
    return element;
  };

  // Text in which the runs of characters that are not common are marked.
  function marked(lines, name) {
    const body = make("p");
    if (lines.every((line) => !line.text.trim())) {
      body.append(make("span", "empty", "(empty)"));
      return body;
    }
    lines.forEach((line, number) => {
      if (number) body.append("\n");
      for (let from = 0, to; from < line.letters.length; from = to) {
        for (to = from; to < line.letters.length && line.mask[to] === line.mask[from]; ) to++;
        const text = visible(line.letters.slice(from, to).join(""));
        body.append(line.mask[from] ? text : make("mark", name, text));
      }
    });
    return body;
  }

  function column(title, faults, body) {
    const element = make("div", "reply");
    const heading = make("h4", "", title);
    if (faults.length) heading.append(" ", make("span", "", faults.join(", ")));
    element.append(heading, body);
    return element;
  }

  function article(row) {
    const element = make("article", "item");
    const head = make("header");
    head.append(make("h3", "", row.id), make("span", `change ${row.change}`, WORDS[row.change]));
    const prompt = make("details");
    prompt.append(make("summary", "", row.prompt));
    const replies = make("div", "replies");
    const [gold, reply] = beside(row.gold, row.reply);
    replies.append(column("gold", [], marked(gold, "missed")));
    if (row.old) replies.append(column("baseline", row.old[1], marked(beside(row.gold, row.old[0])[1], "off")));
    replies.append(column("model", row.faults, row.change === "failed" ? make("p", "empty", row.reply) : marked(reply, "off")));
    element.append(head, prompt, replies);
    return element;
  }

  const predicate = () => FILTERS.find(([name]) => name === state.filter)[2];

  function draw() {
    const rows = state.matches;
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PAGE;
    const shown = rows.slice(from, from + PAGE);
    find("items").replaceChildren(...(shown.length ? shown.map(article) : [make("p", "nothing", "No item matches.")]));
    find("status").textContent = rows.length ? `${count(from + 1)}\u2013${count(from + shown.length)} of ${count(rows.length)} items` : "0 items";
    find("page").textContent = `${count(state.page + 1)} / ${count(pages)}`;
    find("previous").disabled = state.page === 0;
    find("next").disabled = state.page >= pages - 1;
  }

  function select() {
    const holds = predicate();
    const query = state.query.trim().toLowerCase();
    state.matches = results[state.result].rows.filter((row) => {
      if (!holds(row) || (state.fault && !row.faults.includes(state.fault))) return false;
      if (query && !row.words) row.words = [row.id, row.prompt, row.gold, row.reply, row.old ? row.old[0] : ""].join("\n").toLowerCase();
      return row.words.includes(query);
    });
    state.page = 0;
    draw();
  }

  function filters() {
    const rows = results[state.result].rows;
    const buttons = FILTERS.map(([name, label, holds]) => {
      const total = rows.filter(holds).length;
      const needed = name === "all" || name === "wrong" || results[state.result].baseline !== null;
      if (name === "failed" ? !total : !needed) return null;
      const button = make("button", "", label);
      button.type = "button";
      button.dataset.filter = name;
      button.append(make("span", "", count(total)));
      button.disabled = !total && name !== "all";
      button.addEventListener("click", () => {
        state.filter = name;
        press();
        select();
      });
      return button;
    });
    document.querySelector(".filters").replaceChildren(...buttons.filter(Boolean));
    const usable = [...document.querySelectorAll(".filters button:not(:disabled)")];
    if (!usable.some((button) => button.dataset.filter === state.filter)) state.filter = usable[0].dataset.filter;
    press();
    const names = [...new Set(rows.flatMap((row) => row.faults))].sort();
    if (!names.includes(state.fault)) state.fault = "";
    const options = [new Option("any", ""), ...names.map((name) => new Option(visible(name), name))];
    find("fault").replaceChildren(...options);
    find("fault").value = state.fault;
  }

  function press() {
    for (const button of document.querySelectorAll(".filters button"))
      button.setAttribute("aria-pressed", String(button.dataset.filter === state.filter));
  }

  // Show one model's figures and items; with a single one there is nothing to choose.
  function choose(number) {
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
    find("items-of").textContent = visible(`${model} on ${name}${baseline === null ? "" : `, beside ${baseline}`}`);
    filters();
    select();
  }

  const addressed = () => Math.min(Number((/^#result-(\d+)$/.exec(location.hash) || [0, 0])[1]), results.length - 1);

  function theme(name) {
    document.documentElement.dataset.theme = name;
    find("theme").textContent = name === "dark" ? "Light" : "Dark";
    find("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
  }

  function remembered(name) {
    try {
      if (name) localStorage.setItem("sftchat-theme", name);
      return localStorage.getItem("sftchat-theme");
    } catch {
      return null; // a sandboxed page may keep nothing
    }
  }

  function turn(step) {
    const before = state.page;
    state.page = Math.max(0, Math.min(before + step, Math.ceil(state.matches.length / PAGE) - 1));
    if (state.page === before) return;
    draw();
    find("status").scrollIntoView({ block: "center" });
  }

  theme(remembered() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  find("theme").hidden = false;
  find("theme").addEventListener("click", () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    theme(other);
    remembered(other);
  });
  if (!results.length) return;
  find("explorer").hidden = false;
  find("fault").addEventListener("change", (event) => {
    state.fault = event.target.value;
    select();
  });
  let waiting = 0;
  find("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.query = event.target.value;
      select();
    }, 60);
  });
  find("previous").addEventListener("click", () => turn(-1));
  find("next").addEventListener("click", () => turn(1));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, [tabindex]")) return;
    if (event.key === "/") {
      event.preventDefault();
      find("search").focus();
    } else if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
  });
  addEventListener("hashchange", () => choose(addressed()));
  state.filter = FILTERS.find(([name, , holds]) => name !== "fixed" && results[addressed()].rows.some(holds))?.[0] ?? "all";
  choose(addressed());
})();
