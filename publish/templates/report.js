"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const canvas = at("map"), pen = canvas.getContext("2d"), tip = at("tip"), select = at("layer");
  const UNITS = 100000, VOID = "#00000000";
  // Cividis in six steps: readable for colour-blind readers, and in grey.
  const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

  // Outlines come as differences; drawn in degrees of latitude, longitudes shrunk to the middle of the area.
  const unrolled = (steps) => {
    const points = new Float64Array(steps.length);
    let x = 0, y = 0;
    for (let i = 0; i < steps.length; i += 2) {
      x += steps[i]; y += steps[i + 1];
      points[i] = x / UNITS; points[i + 1] = y / UNITS;
    }
    return points;
  };
  const rings = data.rings.map(unrolled), region = data.region.map(unrolled), n = rings.length;
  const boxOf = (ring) => {
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < ring.length; i += 2) {
      box[0] = Math.min(box[0], ring[i]); box[1] = Math.min(box[1], ring[i + 1]);
      box[2] = Math.max(box[2], ring[i]); box[3] = Math.max(box[3], ring[i + 1]);
    }
    return box;
  };
  const boxes = rings.map(boxOf);
  const whole = [...boxes, ...region.map(boxOf)].reduce(
    (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])],
    [Infinity, Infinity, -Infinity, -Infinity]);
  const shrink = Math.cos((whole[1] + whole[3]) / 2 * Math.PI / 180);
  const pictured = new Map([...document.querySelectorAll("article[data-chip]")].map((one) => [one.dataset.chip, one]));
  const dotted = data.ids.map((id) => pictured.has(id));

  let layer = data.layers[0], chosen = -1, view = null, due = false;
  const width = () => canvas.clientWidth, height = () => canvas.clientHeight;
  const fit = () => {
    const wide = Math.max((whole[2] - whole[0]) * shrink, 1e-6), high = Math.max(whole[3] - whole[1], 1e-6);
    const scale = Math.min((width() - 40) / wide, (height() - 60) / high);
    view = { scale, x: (whole[0] + whole[2]) / 2, y: (whole[1] + whole[3]) / 2, least: scale / 2 };
  };
  const sx = (lon) => (lon - view.x) * shrink * view.scale + width() / 2;
  const sy = (lat) => (view.y - lat) * view.scale + height() / 2;
  const lonAt = (px) => (px - width() / 2) / (shrink * view.scale) + view.x;
  const latAt = (py) => view.y - (py - height() / 2) / view.scale;

  const ramp = (share) => {
    const along = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(along), RAMP.length - 2);
    const mixed = RAMP[low].map((part, i) => Math.round(part + (RAMP[low + 1][i] - part) * (along - low)));
    return `rgb(${mixed.join(",")})`;
  };
  const colour = (of, chip) => {
    const value = of.values[chip];
    if (value === null) return VOID;
    if (of.categories) return of.categories[value][1];
    return ramp((value - of.range[0]) / (of.range[1] - of.range[0] || 1));
  };
  const spelled = (of, chip) => {
    const value = of.values[chip];
    if (value === null) return "not known";
    return of.categories ? of.categories[value][0] : `${value}${of.unit ? " " + of.unit : ""}`;
  };
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const trace = (ring) => {
    pen.beginPath();
    for (let i = 0; i < ring.length; i += 2) pen.lineTo(sx(ring[i]), sy(ring[i + 1]));
    pen.closePath();
  };
  const draw = () => {
    due = false;
    const dense = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width() * dense) || canvas.height !== Math.round(height() * dense)) {
      canvas.width = Math.round(width() * dense); canvas.height = Math.round(height() * dense);
    }
    if (!view) fit();
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, width(), height());
    const west = lonAt(0), east = lonAt(width()), north = latAt(0), south = latAt(height());
    const ink = style("--ink"), ground = style("--ground"), quiet = style("--quiet");
    for (let i = 0; i < n; i++) {
      const box = boxes[i];
      if (box[2] < west || box[0] > east || box[3] < south || box[1] > north) continue;
      const wide = (box[2] - box[0]) * shrink * view.scale, fill = colour(layer, i);
      if (wide < 4) {  // smaller than that an outline is not seen, and a square of at least two pixels is
        pen.fillStyle = fill === VOID ? quiet : fill;
        pen.fillRect(sx(box[0]), sy(box[3]), Math.max(wide, 2), Math.max((box[3] - box[1]) * view.scale, 2));
        continue;
      }
      trace(rings[i]);
      pen.fillStyle = fill; pen.fill();
      pen.strokeStyle = fill === VOID ? quiet : ground; pen.lineWidth = 1; pen.stroke();
      if (dotted[i] && wide > 9) {
        pen.beginPath();
        pen.arc((sx(box[0]) + sx(box[2])) / 2, (sy(box[1]) + sy(box[3])) / 2, Math.min(3.5, wide / 6), 0, 7);
        pen.fillStyle = "#ffffff"; pen.fill(); pen.strokeStyle = "#111111"; pen.stroke();
      }
    }
    pen.strokeStyle = ink; pen.lineWidth = 1.5;
    for (const ring of region) { trace(ring); pen.stroke(); }
    if (chosen >= 0) {
      trace(rings[chosen]);
      pen.lineWidth = 5; pen.strokeStyle = ground; pen.stroke();
      pen.lineWidth = 2.5; pen.strokeStyle = ink; pen.stroke();
    }
    furniture(ink, ground);
  };
  // A scale in round metres and the degrees of the middle.
  const furniture = (ink, ground) => {
    const metre = view.scale / 111320, most = width() / 4 / metre, ten = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].find((step) => step * ten <= most) * ten, long = length * metre;
    const label = length >= 1000 ? `${length / 1000} km` : `${length} m`, y = height() - 14;
    pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "bottom";
    const middle = `${latAt(height() / 2).toFixed(3)}°, ${lonAt(width() / 2).toFixed(3)}°`;
    const beside = pen.measureText(middle).width;
    pen.fillStyle = ground; pen.globalAlpha = 0.85;
    pen.fillRect(6, y - 20, long + 16, 28); pen.fillRect(width() - beside - 20, y - 20, beside + 14, 28);
    pen.globalAlpha = 1; pen.strokeStyle = ink; pen.lineWidth = 2; pen.fillStyle = ink;
    pen.beginPath(); pen.moveTo(14, y - 4); pen.lineTo(14, y); pen.lineTo(14 + long, y); pen.lineTo(14 + long, y - 4); pen.stroke();
    pen.fillText(label, 18, y - 3); pen.fillText(middle, width() - beside - 13, y);
  };
  const redraw = () => { if (!due) { due = true; requestAnimationFrame(draw); } };

  const holds = (ring, x, y) => {
    let inside = false;
    for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2) {
      if (ring[i + 1] > y !== ring[j + 1] > y &&
          x < (ring[j] - ring[i]) * (y - ring[i + 1]) / (ring[j + 1] - ring[i + 1]) + ring[i]) inside = !inside;
    }
    return inside;
  };
  const chipAt = (px, py) => {
    const x = lonAt(px), y = latAt(py), slack = 3 / view.scale;
    let near = -1;
    for (let i = n - 1; i >= 0; i--) {
      const box = boxes[i];
      if (x < box[0] - slack || x > box[2] + slack || y < box[1] - slack || y > box[3] + slack) continue;
      if (holds(rings[i], x, y)) return i;
      if ((box[2] - box[0]) * shrink * view.scale < 6) near = i;
    }
    return near;
  };

  const element = (name, text, parent) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  const showLegend = () => {
    const list = at("legend");
    list.replaceChildren();
    if (layer.categories) {
      const known = layer.categories.map((one) => one).sort((a, b) => (layer === data.layers[0] ? 0 : b[2] - a[2]));
      for (const [name, paint, count] of known.slice(0, 16)) {
        const row = element("li", undefined, list), swatch = element("span", undefined, row);
        swatch.className = "swatch"; swatch.style.background = paint;
        row.append(`${name} `); element("small", count.toLocaleString("en"), row);
      }
      if (known.length > 16) element("li", `and ${known.length - 16} more`, list);
    } else {
      const row = element("li", undefined, list), band = element("span", undefined, row), ends = element("span", undefined, row);
      band.className = "ramp"; ends.className = "ends";
      band.style.background = `linear-gradient(90deg, ${RAMP.map((part) => `rgb(${part.join(",")})`).join(",")})`;
      for (const end of layer.range) element("span", `${end}${layer.unit ? " " + layer.unit : ""}`, ends);
    }
    if (layer.values.includes(null)) element("li", "only an outline: not known", list);
  };
  const choose = (chip, centre) => {
    if (chosen >= 0) pictured.get(data.ids[chosen])?.classList.remove("chosen");
    chosen = chip;
    const detail = at("detail");
    detail.replaceChildren();
    if (chip < 0) { redraw(); return; }
    const id = data.ids[chip], box = boxes[chip];
    element("h3", id, detail);
    const list = element("dl", undefined, detail);
    const row = (name, text) => { element("dt", name, list); element("dd", text, list); };
    row("centre", `${((box[1] + box[3]) / 2).toFixed(5)}°, ${((box[0] + box[2]) / 2).toFixed(5)}°`);
    for (const one of data.layers) row(one.name, spelled(one, chip));
    if (data.notes[chip]) row("reason", data.notes[chip]);
    const article = pictured.get(id);
    if (article) {
      article.classList.add("chosen");
      detail.append(article.querySelector(".shots").cloneNode(true));
    } else if (pictured.size) {
      element("p", "No pictures of this chip are in the page. To draw them:", detail).className = "quiet";
      element("pre", `curate show ${id} --dataset DIR`, detail);
    }
    if (centre || box[2] < lonAt(0) || box[0] > lonAt(width()) || box[1] > latAt(0) || box[3] < latAt(height())) {
      view.x = (box[0] + box[2]) / 2; view.y = (box[1] + box[3]) / 2;
    }
    redraw();
  };
  const zoom = (times, px = width() / 2, py = height() / 2) => {
    const x = lonAt(px), y = latAt(py);
    view.scale = Math.min(Math.max(view.scale * times, view.least), 5e6);
    view.x += x - lonAt(px); view.y += y - latAt(py);
    redraw();
  };
  // The next chip in a direction: near, and not far aside.
  const step = (right, up) => {
    const from = chosen < 0 ? [view.x, view.y, view.x, view.y] : boxes[chosen];
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i++) {
      if (i === chosen) continue;
      const east = ((boxes[i][0] + boxes[i][2]) - (from[0] + from[2])) * shrink, north = (boxes[i][1] + boxes[i][3]) - (from[1] + from[3]);
      const along = east * right + north * up, aside = Math.abs(east * up) + Math.abs(north * right);
      if (along <= 0 || aside > along * 1.5) continue;
      if (along + 2 * aside < least) { least = along + 2 * aside; best = i; }
    }
    if (chosen < 0 && best < 0 && n) best = 0;
    if (best >= 0) choose(best);
  };

  data.layers.forEach((one, i) => { const option = element("option", one.name, select); option.value = i; });
  select.addEventListener("change", () => { layer = data.layers[select.value]; showLegend(); redraw(); });
  at("nearer").addEventListener("click", () => zoom(1.6));
  at("farther").addEventListener("click", () => zoom(1 / 1.6));
  at("whole").addEventListener("click", () => { fit(); redraw(); });
  at("find").addEventListener("input", (event) => {
    const asked = event.target.value.trim();
    const found = asked ? data.ids.findIndex((id) => id === asked) : -1;
    const part = found >= 0 || !asked ? found : data.ids.findIndex((id) => id.includes(asked));
    if (part >= 0) choose(part, true);
  });
  for (const [id, article] of pictured) {
    article.querySelector("button").addEventListener("click", () => {
      choose(data.ids.indexOf(id), true);
      at("map-title").scrollIntoView();
      canvas.focus({ preventScroll: true });
    });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX, y: event.offsetY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      const right = event.offsetX - held.x, down = event.offsetY - held.y;
      if (held.moved || Math.hypot(right, down) > 4) {
        held = { x: event.offsetX, y: event.offsetY, moved: true };
        view.x -= right / (shrink * view.scale); view.y += down / view.scale;
        redraw();
      }
      return;
    }
    const chip = chipAt(event.offsetX, event.offsetY);
    tip.style.display = chip < 0 ? "none" : "block";
    if (chip >= 0) {
      tip.textContent = `${data.ids[chip]} · ${spelled(layer, chip)}`;
      tip.style.left = `${Math.min(event.offsetX + 12, width() - tip.offsetWidth - 4)}px`;
      tip.style.top = `${Math.max(event.offsetY - 30, 2)}px`;
    }
  });
  canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.moved) choose(chipAt(event.offsetX, event.offsetY));
    held = null;
  });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (moves[event.key]) step(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.6);
    else if (event.key === "-") zoom(1 / 1.6);
    else if (event.key === "0") { fit(); redraw(); }
    else if (event.key === "Escape") choose(-1);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  showLegend();
  redraw();
})();
