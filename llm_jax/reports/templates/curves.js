// Curves that answer: values under the pointer, x by steps, tokens or time, logarithmic axes. The static pictures stay
// where this does not run.
(() => {
  "use strict";
  // A page of a run in training renews itself, but not under a pointer that reads a value.
  const live = document.getElementById("live");
  if (live) {
    const again = () => (document.hidden || document.querySelector(".plot:hover, .plot:focus") ? setTimeout(again, 1000) : location.reload());
    setTimeout(again, 1000 * live.dataset.seconds);
  }
  const words = JSON.parse(document.getElementById("curve-words").textContent);
  const language = document.documentElement.lang;
  const figures = [...document.querySelectorAll("script.curve")].map((script) => script.parentElement);
  if (!figures.length || !document.querySelector(".choices")) return;
  const namespace = document.querySelector(".choices svg").namespaceURI;
  const KEY = "llm_jax axes";
  const VALUE = 3, BAND = 4; // places in a point, behind those of the three axes
  const choice = { axis: 0, x: false, y: false };
  try { Object.assign(choice, JSON.parse(sessionStorage.getItem(KEY))); } catch { /* nothing is kept here */ }

  function make(parent, tag, attributes = {}, text = "") {
    const element = parent.namespaceURI === namespace || tag === "svg" ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    parent.append(element);
    return element;
  }
  const whole = (number) => Math.round(number).toLocaleString(language);
  const compact = (number) => (number < 1e5 ? whole(number) : number.toLocaleString(language, { notation: "compact", maximumFractionDigits: 2 }));
  function real(number, scale) {
    if (scale === "share") return `${(100 * number).toPrecision(3)} %`;
    const size = Math.abs(number);
    if (size && size < 1e-3) return number.toExponential(2).replace(/\.?0*e/, "e");
    return size >= 1e4 ? compact(number) : String(Number(number.toPrecision(5)));
  }
  // The unit in which a time of so many seconds is told: its length and its name.
  const unit = (most) => (most < 120 ? [1, words.unit_seconds] : most < 7200 ? [60, words.unit_minutes] : [3600, words.unit_hours]);
  function place(number, axis) {
    if (axis === 0) return `${words.at_steps} ${whole(number)}`;
    if (axis === 1) return `${words.at_tokens} ${compact(number)}`;
    const [length, name] = unit(number);
    return `${words.at_seconds} ${Number((number / length).toPrecision(4))} ${name}`;
  }

  // Round numbers in a range: on a line, and on a logarithmic axis, where a narrow range has those of a line.
  function ticks(low, high, count, log, whole) {
    if (log && high >= 8 * low) {
      const decades = Math.log10(high / low), found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
        for (const factor of decades > count - 1 ? [1] : decades > count / 3 ? [1, 3] : [1, 2, 5]) found.push(factor * 10 ** power);
      }
      const inside = found.filter((tick) => tick >= low && tick <= high), every = Math.ceil(inside.length / (count + 2));
      return inside.filter((_, at) => at % every === 0);
    }
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
    if (whole) step = Math.max(1, step);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9); at += 1) found.push(Number((at * step).toPrecision(12)));
    return found;
  }

  function chart(figure) {
    const script = figure.querySelector("script.curve"), data = JSON.parse(script.textContent);
    figure.querySelector("svg")?.remove();
    const plot = make(figure, "div", { class: "plot", tabindex: 0, role: "group", "aria-label": `${script.dataset.label} ${words.hint}` });
    figure.insertBefore(plot, figure.querySelector("figcaption") ?? script);
    const keys = make(plot, "div", { class: "keys", role: "status" });
    const svg = make(plot, "svg", { "aria-hidden": "true" });
    const spot = make(keys, "span", { class: "place" });
    const named = data.lines.filter((line) => line.name).map((line) => {
      const key = make(keys, "span");
      make(key, "i", { style: `background: ${line.colour}` });
      key.append(`${line.name} `);
      return { line, value: make(key, "b") };
    });
    let view, chosen = null, shown = [];

    // Where an axis has no numbers, or none above zero, the plainer one is drawn.
    function look() {
      const has = (axis) => data.lines.some((line) => line.points.filter((point) => point[axis] !== null).length > 1);
      const axis = has(choice.axis) ? choice.axis : 0;
      const log = { x: choice.x, y: choice.y || data.scale === "log" };
      const lines = data.lines.map((line) => line.points.filter((point) => point[axis] !== null && (!log.x || point[axis] > 0)));
      const all = lines.flat(), xs = all.map((point) => point[axis]), ys = all.map((point) => point[VALUE]);
      if (ys.some((y) => y <= 0)) log.y = false;
      let [low, high] = data.limits ?? [Math.min(...ys), Math.max(...ys)];
      if (log.y && low <= 0) low = 0.9 * Math.min(...ys);
      if (!data.limits) {
        const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 1;
        if (log.y) [low, high] = [low * (low / high || 1) ** 0.06 * 0.98, high * (high / low) ** 0.06 * 1.02];
        else [low, high] = [["zero", "share"].includes(data.scale) ? 0 : low - margin, high + margin];
      }
      const most = Math.max(...xs), left = log.x ? Math.min(...xs) : Math.min(0, ...xs);
      return { axis, log, lines, low, high, left, most: most > left ? most : left + 1 };
    }

    function draw() {
      view = look();
      chosen = null;
      const { axis, log, lines, low, high, left, most } = view;
      const width = Math.max(240, plot.clientWidth), height = figure.classList.contains("wide") ? Math.min(340, 0.62 * width + 60) : 210;
      const scaled = (value, from, to, logarithmic) => (logarithmic ? Math.log(value / from) / Math.log(to / from) : (value - from) / (to - from));
      const rows = ticks(low, high, figure.classList.contains("wide") ? 7 : 5, log.y, false);
      const seen = data.levels.filter(([, value]) => value >= low && value <= high).sort((one, other) => one[1] - other[1]);
      const texts = rows.map((tick) => real(tick, data.scale));
      const box = { left: 14 + 6.6 * Math.max(...texts.map((text) => text.length), 3), top: 18, right: width - (seen.length ? 14 + 6 * Math.max(...seen.map(([title]) => [...title].reduce((sum, letter) => sum + (letter > "\u2e7f" ? 1.9 : 1), 6))) : 14), bottom: height - 34 };
      const x = (value) => box.left + (box.right - box.left) * scaled(value, left, most, log.x);
      const y = (value) => box.bottom - (box.bottom - box.top) * scaled(value, low, high, log.y);
      Object.assign(view, { x, y, box });
      svg.replaceChildren();
      for (const [name, value] of [["viewBox", `0 0 ${width} ${height}`], ["width", width], ["height", height]]) svg.setAttribute(name, value);
      rows.forEach((tick, at) => {
        make(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) });
        make(svg, "text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, texts[at]);
      });
      const [length, time] = axis === 2 ? unit(most) : [1, ""];
      for (const tick of ticks(left / length, most / length, Math.max(3, Math.floor(width / 110)), log.x, axis < 2)) {
        const text = axis === 2 ? String(tick) : compact(tick);
        make(svg, "line", { class: "grid", x1: x(tick * length), x2: x(tick * length), y1: box.bottom, y2: box.bottom + 4 });
        make(svg, "text", { x: x(tick * length), y: box.bottom + 16, "text-anchor": "middle" }, text);
      }
      make(svg, "text", { x: box.left, y: 10 }, data.axis);
      const name = [words.steps, words.tokens, `${words.seconds} (${time})`][axis];
      make(svg, "text", { x: box.right, y: height - 3, "text-anchor": "end", class: "axis-name" }, name);
      const inside = make(svg, "svg", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top, style: "overflow: hidden" });
      inside.setAttribute("viewBox", `${box.left} ${box.top} ${box.right - box.left} ${box.bottom - box.top}`);
      lines.forEach((points, at) => {
        const { colour, style, dash } = data.lines[at], path = points.map((point) => `${x(point[axis]).toFixed(1)} ${y(point[VALUE]).toFixed(1)}`);
        if (points.some((point) => point[BAND])) {
          const edge = (point, sign) => `${x(point[axis]).toFixed(1)} ${y(Math.max(point[VALUE] + sign * point[BAND], log.y ? low : -Infinity)).toFixed(1)}`;
          const around = [...points.map((point) => edge(point, 1)), ...points.map((point) => edge(point, -1)).reverse()];
          make(inside, "polygon", { points: around.join(" "), fill: colour, opacity: 0.18 });
        }
        const faint = style.includes("faint");
        make(inside, "polyline", { points: path.join(" "), fill: "none", stroke: colour, "stroke-width": faint ? 1 : 1.8, opacity: faint ? 0.4 : 1,
          "stroke-dasharray": dash, "stroke-linejoin": "round" });
        if (style.includes("dots") || points.length === 1) for (const point of points) make(inside, "circle", { cx: x(point[axis]), cy: y(point[VALUE]), r: 2.5, fill: colour });
      });
      // Names beside their lines, moved apart where they would touch.
      let last = box.bottom + 16;
      const heights = seen.map(([, value]) => (last = Math.min(y(value) + 4, last - 12)));
      const over = Math.max(0, box.top + 4 - last);
      seen.forEach(([title, value], at) => {
        make(svg, "line", { class: "level", x1: box.left, x2: box.right, y1: y(value), y2: y(value) });
        make(svg, "text", { class: "level-name", x: box.right + 6, y: heights[at] + over }, `${title} ${value.toFixed(3)}`);
      });
      shown = [make(svg, "line", { class: "cross", y1: box.top, y2: box.bottom, visibility: "hidden" }),
        ...named.map(({ line }) => make(svg, "circle", { r: 4, fill: line.colour, visibility: "hidden" }))];
      tell(chosen);
    }

    const nearest = (points, value) => points.reduce((best, point) =>
      (best === null || Math.abs(view.x(point[view.axis]) - value) < Math.abs(view.x(best[view.axis]) - value) ? point : best), null);
    // The values at a place of the x axis; at none, those of the last one.
    function tell(at) {
      const { axis, lines, x, y, most } = view;
      const every = lines.filter((points, index) => data.lines[index].name && points.length);
      const target = at === null ? Infinity : x(at);
      const found = every.map((points) => nearest(points, at === null ? x(most) : target));
      const own = found.length ? found.reduce((best, point) => (Math.abs(x(point[axis]) - target) < Math.abs(x(best[axis]) - target) ? point : best)) : null;
      const first = at === null ? most : own?.[axis];
      spot.textContent = first === undefined ? "" : place(first, axis);
      shown[0].setAttribute("visibility", at === null ? "hidden" : "visible");
      if (at !== null) for (const name of ["x1", "x2"]) shown[0].setAttribute(name, x(first));
      named.forEach(({ line, value }, index) => {
        const point = nearest(lines[data.lines.indexOf(line)], x(first ?? 0));
        value.textContent = point ? real(point[VALUE], data.scale) : "–";
        const dot = shown[index + 1], outside = !point || point[VALUE] < view.low || point[VALUE] > view.high;
        dot.setAttribute("visibility", at === null || outside ? "hidden" : "visible");
        if (point && !outside) { dot.setAttribute("cx", x(point[axis])); dot.setAttribute("cy", y(point[VALUE])); }
      });
      chosen = at;
    }
    const places = () => [...new Set(view.lines.flat().map((point) => point[view.axis]))].sort((one, other) => one - other);
    function point(event) {
      const frame = svg.getBoundingClientRect(), at = ((event.clientX - frame.left) * svg.viewBox.baseVal.width) / frame.width;
      tell(places().reduce((best, value) => (Math.abs(view.x(value) - at) < Math.abs(view.x(best) - at) ? value : best)));
    }
    for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, point);
    plot.addEventListener("pointerleave", () => tell(null));
    plot.addEventListener("blur", () => tell(null));
    plot.addEventListener("keydown", (event) => {
      const all = places(), now = chosen === null ? all.length : all.indexOf(chosen);
      const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: all.length - 1 }[event.key];
      if (event.key === "Escape") tell(null);
      else if (all[next] === undefined) return;
      else tell(all[next]);
      event.preventDefault();
    });
    return { draw, has: (axis) => data.lines.some((line) => line.points.some((point) => point[axis] !== null)), plot };
  }

  const charts = figures.map(chart);
  const buttons = [...document.querySelectorAll(".choices button")];
  function drawAll() {
    for (const button of buttons) {
      const { axis, log } = button.dataset;
      button.hidden = axis !== undefined && !charts.some((each) => each.has(Number(axis)));
      button.setAttribute("aria-pressed", String(axis === undefined ? choice[log] : Number(axis) === choice.axis));
    }
    charts.forEach((each) => each.draw());
  }
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const { axis, log } = button.dataset;
      if (axis === undefined) choice[log] = !choice[log];
      else choice.axis = Number(axis);
      try { sessionStorage.setItem(KEY, JSON.stringify(choice)); } catch { /* nothing is kept here */ }
      drawAll();
    });
  }
  document.querySelectorAll(".choices").forEach((choices) => { choices.hidden = false; });
  let width = 0;
  new ResizeObserver(() => {
    if (charts[0].plot.clientWidth !== width) { width = charts[0].plot.clientWidth; drawAll(); }
  }).observe(charts[0].plot);
  drawAll();
})();
