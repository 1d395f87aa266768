// The X-ray's three readouts: surprisal by token, the logit lens, and attention heads.
(() => {
  "use strict";
  const root = document.currentScript.closest(".xray");
  const find = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];
  const { tokens, lens, attention, vocabulary, words } = JSON.parse(find("script[type='application/json']").textContent);
  // Records come as arrays, in the order of their fields in xray.py.
  const labels = tokens.map(([, label]) => label);
  const [layers, heads, length, packed] = attention;
  const weights = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));

  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)} %` : share >= 0.0005 ? `${(100 * share).toFixed(1)} %` : "< 0.1 %");

  function make(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  }
  const chip = (label) => make("span", label === null ? "soft" : "chip", label ?? words.rare);

  // A row of facts: strings become text, [name, value] pairs a name with a bold value.
  function facts(parts) {
    const row = make("div", "row", "");
    for (const part of parts) {
      if (part instanceof Element) { row.append(part); continue; }
      const [name, value] = Array.isArray(part) ? part : [part];
      const fact = make("span", "soft", name);
      if (value !== undefined) fact.append(" ", make("b", "", value));
      row.append(fact);
    }
    return row;
  }
  // Labels with their shares as bars; the true one is outlined.
  function likely(pairs, truth) {
    const list = make("div", "likely", "");
    for (const [label, share] of pairs) {
      const bar = make("i", "", "");
      bar.style.setProperty("--share", share);
      const name = make("span", "", "");
      name.append(chip(label));
      if (label !== null && label === truth) name.firstChild.classList.add("true");
      list.append(name, bar, make("span", "", percent(share)));
    }
    return list;
  }

  // Items as one stop of the Tab key: arrows move, and what is pointed at, tapped or focused is picked.
  function pickable(items, columns, mark, hover, show) {
    let current = -1;
    function pick(index) {
      if (index === current) return;
      if (current >= 0) { items[current].tabIndex = -1; items[current].setAttribute(mark, "false"); }
      current = index;
      items[current].tabIndex = 0;
      items[current].setAttribute(mark, "true");
      show(current);
    }
    items.forEach((item, index) => {
      item.tabIndex = -1;
      item.setAttribute(mark, "false");
      item.addEventListener("focus", () => pick(index));
      item.addEventListener("click", () => item.focus({ preventScroll: true }));
      if (hover) item.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && pick(index));
      item.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -index, End: items.length - 1 - index };
        const next = index + steps[event.key];
        if (!(next >= 0 && next < items.length)) return;
        event.preventDefault();
        items[next].focus();
      });
    });
    return pick;
  }
  function options(selector, items, label) {
    const box = find(selector);
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", label);
    for (const item of items) item.setAttribute("role", "option");
  }

  // Surprisal.
  const scored = all(".surprise .token");
  scored.forEach((item) => item.removeAttribute("title"));
  options(".surprise .tokens", scored, words.surprise_title);
  const pickScored = pickable(scored, 1, "aria-selected", true, (index) => {
    const [, label, nats, probability, rank, guesses] = tokens[index];
    const line = nats === null
      ? facts([chip(label), words.first])
      : facts([chip(label), [words.nats, nats.toFixed(2)], [words.probability, percent(probability)],
          [words.rank, fill("{rank} / {all}", { rank: rank.toLocaleString(), all: vocabulary.toLocaleString() })]]);
    find(".surprise .readout").replaceChildren(line, ...(nats === null ? [] : [facts([words.expected]), likely(guesses, label)]));
  });
  pickScored(tokens.reduce((best, token, index) => (token[2] > (tokens[best][2] ?? -1) ? index : best), 0));

  // Logit lens.
  const cells = all(".lens tbody td");
  for (const cell of cells) cell.setAttribute("role", "gridcell");
  find(".lens table").setAttribute("role", "grid");
  const pickCell = pickable(cells, length, "aria-selected", true, (index) => {
    const [row, position] = [Math.floor(index / length), index % length];
    const [[label, probability], truth] = lens[row][position];
    const pairs = [[label, probability]];
    if (label !== labels[position + 1]) pairs.push([labels[position + 1], truth]);
    find(".lens .readout").replaceChildren(
      facts([words.lens_read, chip(labels[position]), words.lens_truth, chip(labels[position + 1])]),
      facts([`${row ? fill(words.lens_block, { layer: row }) : words.lens_start}, ${words.lens_says}`]), likely(pairs, labels[position + 1]));
  });
  pickCell((lens.length - 1) * length + lens.at(-1).reduce((best, cell, position, row) => (cell[1] > row[best][1] ? position : best), 0));

  // Attention: one head is chosen, one token looks.
  let [head, query] = [0, length - 1];
  const size = length * length;
  const weight = (row, column) => weights[head * size + row * length + column] / 255;
  const looking = all(".looks .token");
  function showLook() {
    looking.forEach((item, column) => {
      const share = column > query ? 0 : weight(query, column);
      item.style.setProperty("--share", Math.sqrt(share));
      item.classList.toggle("later", column > query);
      item.lastElementChild.textContent = share >= 0.005 ? Math.round(100 * share) : "";
    });
    const bar = find(".map i");
    bar.style.top = `${(100 * query) / length}%`;
    bar.style.height = `${100 / length}%`;
    const most = [...Array(query + 1).keys()].sort((a, b) => weight(query, b) - weight(query, a)).slice(0, 3);
    find(".attention .readout").replaceChildren(
      facts([find(".map b").textContent, chip(labels[query]), words.looks]),
      likely(most.map((column) => [column === query ? `${labels[column]} (${words.itself})` : labels[column], weight(query, column)])));
  }
  function draw(canvas, index) {
    const image = new ImageData(length, length);
    const [red, green, blue] = getComputedStyle(root).getPropertyValue("--cool").trim().split(/\s+/).map(Number);
    for (let at = 0; at < size; at += 1) {
      image.data.set([red, green, blue, 255 * Math.sqrt(weights[index * size + at] / 255)], 4 * at);
    }
    canvas.width = canvas.height = length;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  const buttons = all(".grid button");
  function drawAll() {
    buttons.forEach((button, index) => draw(button.firstElementChild, index));
    draw(find(".map canvas"), head);
  }
  options(".looks", looking, words.attention_tokens);
  const pickQuery = pickable(looking, 1, "aria-selected", true, (index) => { query = index; showLook(); });
  const pickHead = pickable(buttons, heads, "aria-checked", false, (index) => {
    head = index;
    find(".map b").textContent = buttons[index].title;
    draw(find(".map canvas"), head);
    showLook();
  });
  function point(event) {
    const box = event.currentTarget.getBoundingClientRect();
    pickQuery(Math.min(length - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * length))));
  }
  for (const kind of ["pointermove", "pointerdown"]) find(".map > div").addEventListener(kind, point);
  // First shown is what tells most: the head that looks hardest at one token other than the first and itself.
  const told = (at) => { const [row, column] = [Math.floor((at % size) / length), at % length]; return column && column < row ? weights[at] ** 2 : 0; };
  const clarity = new Float64Array(layers * heads);
  for (let at = 0; at < weights.length; at += 1) clarity[Math.floor(at / size)] += told(at);
  pickHead(clarity.indexOf(Math.max(...clarity)));
  let best = head * size + size - 1;
  for (let at = head * size; at < (head + 1) * size; at += 1) if (told(at) > told(best)) best = at;
  pickQuery(Math.floor((best % size) / length));
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
