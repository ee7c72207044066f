"use strict";
// The players, charts and samples of a page. Everything is in the page; nothing is asked of anybody else.

const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const stored = (id) => JSON.parse(document.getElementById(id).textContent);

function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// 256 colours between stops at equal distances.
function table(stops) {
  return Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (stops.length - 1), low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((channel, index) => Math.round(channel + (stops[low + 1][index] - channel) * (place - low)));
  });
}

// By its events, and not by decode(): the page counts as loaded only when its pictures are there.
function decoded(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture cannot be decoded"));
    image.src = address;
  });
}

// The colours of a map: levels 0 and 1 are what is missing and what is below the scale.
function mapTable({ stops, missing, under }) {
  const along = table(stops);
  return along.map((_, level) => (level === 0 ? missing : level === 1 ? under : along[Math.round(((level - 2) / 253) * 255)]));
}

class Player {
  constructor(element) {
    this.element = element;
    const data = stored(element.dataset.clips);
    this.clips = data.clips;
    this.usual = this.values = table(data.colours.values);
    this.errors = table(data.colours.errors);
    for (const name of ["views", "play", "position", "gauge", "where", "divider", "overlay"]) {
      this[name] = find(`.${name}`, element);
    }
    this.rival = find(".rival select", element);
    this.speed = find(".speed select", element);
    this.charts = all(`[data-player="${element.id}"]`);
    this.playing = false;
    this.listen();
    this.scales = { values: find(".scale.values", element), errors: find(".scale.errors", element) };
    this.scale();
    this.open(0).then(() => {
      if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.start();
    });
  }

  // The bars of colours, from the first that stands for a value.
  scale() {
    for (const [name, scale] of Object.entries(this.scales)) {
      const context = find("canvas", scale).getContext("2d"), first = name === "values" && this.clip?.look.map ? 2 : 0;
      for (let x = 0; x < 96; x++) {
        context.fillStyle = `rgb(${this[name][Math.round(first + (x / 95) * (255 - first))]})`;
        context.fillRect(x, 0, 1, 8);
      }
    }
  }

  // ---- a clip

  async open(number) {
    const clip = this.clips[number];
    this.wanted = number;
    const tracks = await Promise.all([clip.given, clip.truth, ...clip.tracks.map((track) => track.frames)].map(
      (frames) => Promise.all(frames.map(decoded))));
    if (this.wanted !== number) return; // another was asked for meanwhile
    const [given, truth, ...frames] = tracks;
    Object.assign(this, { clip, given, truth, number, kept: new Map() });
    this.tracks = clip.tracks.map((track, index) => ({ ...track, frames: frames[index] }));
    this.total = given.length + clip.ahead;
    this.position.max = this.total - 1;
    this.overlay.closest("label").hidden = !truth.length;
    find(".view", this.element).hidden = !truth.length;
    if (!truth.length) this.overlay.checked = false;
    const { map, named } = clip.look;
    this.values = map ? mapTable(map) : this.usual;
    this.scale();
    find(".most", this.scales.errors).textContent = map ? map.error : `${Number(clip.look.errorPeak.toPrecision(2))}+`;
    find(".most", this.scales.values).textContent = map ? map.most : Number(clip.look.peak.toPrecision(2));
    find(".least", this.scales.values).textContent = map ? map.least : 0;
    find(".what", this.scales.values).textContent = named || "values, channels side by side";
    this.scales.values.hidden = !clip.look.gridded;
    this.rival.replaceChildren(...this.tracks.map((track, index) => made("option", { value: index }, track.label)));
    this.gauge.replaceChildren(...(this.total <= 240 ? Array.from({ length: this.total }, (_, index) =>
      made("i", index < given.length ? {} : { class: "predicted" })) : []));
    const lasts = this.total / (clip.fps || 5);
    this.speed.value = ["1", "0.5", "0.25", "0.1"].find((speed) => lasts / speed >= 2.4) || "0.1";
    this.element.setAttribute("aria-label", `Player: ${clip.name}`);
    for (const point of all("[data-clip]")) point.classList.toggle("shown", Number(point.dataset.clip) === number);
    this.arrange();
    this.seek(0);
  }

  get swiped() {
    return find(".view input:checked", this.element).value === "swipe" && this.truth.length > 0;
  }

  // Which canvases there are.
  arrange() {
    const swiped = this.swiped;
    find(".split", this.element).hidden = find(".rival", this.element).hidden = !swiped;
    find(".rival", this.element).hidden = !swiped || this.tracks.length < 2;
    const shown = this.truth.length ? [{ label: "Truth", true: true }, ...this.tracks] : this.tracks;
    const wanted = swiped ? [{ label: "Truth" }] : shown;
    this.views.classList.toggle("swiped", swiped);
    this.views.classList.toggle("three", !swiped && (wanted.length === 3 || wanted.length > 4));
    this.boxes = wanted.map((track, index) => {
      const { width, height, hard } = this.clip.look;
      const canvas = made("canvas", { width, height, role: "img", class: hard ? "hard" : "" });
      const name = made("b", {}, track.label), badge = made("span", { class: "badge" });
      const frame = made("div", { class: "frame" }, canvas);
      frame.style.setProperty("--ratio", width / height);
      const box = made("figure", { class: `view-box${index < 2 ? " main" : ""}` }, made("figcaption", {}, name, badge), frame);
      if (hard) this.enlarge(canvas);
      this.drag(canvas);
      return { track, canvas, name, badge, frame, box };
    });
    this.views.replaceChildren(...this.boxes.map((box) => box.box));
  }

  // Small frames are drawn large, so that the divider and the screen have pixels to work with.
  enlarge(canvas) {
    const factor = Math.max(1, Math.ceil(512 / Math.min(canvas.width, canvas.height)));
    canvas.width *= factor;
    canvas.height *= factor;
  }

  // ---- time

  seek(position) {
    this.at = Math.max(0, Math.min(this.total - 1, Math.round(position)));
    this.position.value = this.at;
    this.draw();
  }

  get ahead() {
    return this.at - this.given.length + 1; // of the first predicted frame 1
  }

  start() {
    if (this.playing) return;
    this.playing = true;
    this.tell();
    let before = performance.now(), due = 0, held = 0;
    const step = (now) => {
      if (!this.playing) return;
      const frame = 1000 / ((this.clip.fps || 5) * Number(this.speed.value));
      due += Math.min(now - before, 250);
      before = now;
      if (this.at === this.total - 1 && held < 700) {
        held += due;
        due = 0;
      } else if (due >= frame) {
        held = 0;
        const steps = Math.floor(due / frame);
        due -= steps * frame;
        this.seek(this.at === this.total - 1 ? 0 : Math.min(this.at + steps, this.total - 1));
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  stop() {
    this.playing = false;
    this.tell();
  }

  tell() {
    this.play.textContent = this.playing ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", this.playing ? "Pause" : "Play");
  }

  toggle() {
    if (this.playing) return this.stop();
    if (this.at === this.total - 1) this.seek(0);
    this.start();
  }

  // ---- pictures

  picture(track, position) {
    if (position < this.given.length) return this.given[position];
    const step = position - this.given.length;
    if (track.true) return this.truth[step] || null;
    return track.frames.length ? track.frames[step] : this.given[this.given.length - 1];
  }

  // A picture as it is shown: grids in the colours of values.
  shown(image) {
    if (!this.clip.look.gridded) return image;
    return this.remembered(image, () => this.mapped([image], (a, index) => this.values[a[index]]));
  }

  error(track, position) {
    const truth = this.truth[position - this.given.length];
    if (!truth) return null;
    const key = `${this.tracks.indexOf(track)}/${position}`, { peak, errorPeak } = this.clip.look;
    const scale = peak / errorPeak / 3;
    return this.remembered(key, () => this.mapped([this.picture(track, position), truth], (a, index, b) => {
      if (this.clip.look.map && !(a[index] && b[index])) return this.errors[0]; // not known
      const sum = Math.abs(a[index] - b[index]) + Math.abs(a[index + 1] - b[index + 1]) + Math.abs(a[index + 2] - b[index + 2]);
      return this.errors[Math.min(255, Math.round(sum * scale))];
    }));
  }

  remembered(key, make) {
    if (!this.kept.has(key)) {
      if (this.kept.size > 400) this.kept.clear();
      this.kept.set(key, make());
    }
    return this.kept.get(key);
  }

  // A canvas whose colours are made of the pixels of one or two pictures.
  mapped(images, colour) {
    const { width, height } = this.clip.look;
    const pixels = images.map((image) => {
      const context = made("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0, width, height);
      return context.getImageData(0, 0, width, height).data;
    });
    const canvas = made("canvas", { width, height }), result = new ImageData(width, height);
    for (let index = 0; index < result.data.length; index += 4) {
      const [red, green, blue] = colour(pixels[0], index, pixels[1]);
      result.data.set([red, green, blue, 255], index);
    }
    canvas.getContext("2d").putImageData(result, 0, 0);
    return canvas;
  }

  paint(context, track, from = 0, to = 1) {
    const { width, height } = context.canvas, image = this.picture(track, this.at);
    context.save();
    context.beginPath();
    context.rect(from * width, 0, (to - from) * width, height);
    context.clip();
    context.imageSmoothingEnabled = !this.clip.look.hard;
    const error = this.overlay.checked && !track.true && !track.plain && this.ahead > 0 ? this.error(track, this.at) : null;
    context.fillStyle = "#05070a";
    context.fillRect(0, 0, width, height);
    if (image) {
      context.globalAlpha = !error ? 1 : this.clip.look.gridded ? 0 : 0.35; // grids have colours of their own
      context.drawImage(this.shown(image), 0, 0, width, height);
      context.globalAlpha = 1;
    } else {
      context.fillStyle = "#98a1b1";
      context.font = `${Math.max(12, width / 22)}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.fillText("not known", width / 2, height / 2);
    }
    if (error) {
      context.globalCompositeOperation = "screen";
      context.drawImage(error, 0, 0, width, height);
    }
    context.restore();
  }

  draw() {
    const { clip, ahead } = this, kind = ahead > 0 ? "ahead" : "given";
    const seconds = clip.clock && clip.fps ? ` · ${(ahead / clip.fps).toFixed(clip.fps <= 100 ? 2 : 4)} s` : "";
    const lead = clip.leads ? clip.leads[ahead - 1] : `+${ahead}`, valid = clip.times ? `${clip.times[this.at]} · ` : "";
    const where = valid + (ahead > 0 ? `${lead}${seconds} ahead` : `given ${this.at + 1} of ${this.given.length}`);
    this.where.textContent = where;
    this.where.className = `where ${kind}`;
    this.position.setAttribute("aria-valuetext", where);
    this.scales.errors.hidden = !this.overlay.checked;
    for (const { track, canvas, name, badge, frame } of this.boxes) {
      const context = canvas.getContext("2d");
      let label = track.label;
      if (this.swiped) {
        const other = this.tracks[this.rival.value || 0], split = this.divider.value / 100;
        this.paint(context, { true: true }, 0, split);
        this.paint(context, other, split, 1);
        context.fillStyle = "#ffffff";
        context.fillRect(split * canvas.width - canvas.width / 400, 0, canvas.width / 200, canvas.height);
        label = `← Truth | ${other.label} →`;
      } else {
        this.paint(context, track);
      }
      const what = kind === "given" ? "given" : lead;
      const value = kind === "ahead" && track.errors && track.errors[ahead - 1];
      name.textContent = label;
      badge.textContent = typeof value === "number" && !this.swiped ? `error ${this.amount(value)}` : what;
      badge.className = `badge ${kind}`;
      frame.className = `frame ${track.true || this.swiped ? (kind === "given" ? "given" : "") : kind}`;
      canvas.setAttribute("aria-label", `${label}, ${where}`);
    }
    [...this.gauge.children].forEach((cell, index) => cell.classList.toggle("done", index <= this.at));
    this.charts.forEach((chart) => this.point(chart));
  }

  amount(error) {
    const { map, units } = this.clip.look;
    return map ? `${Number(error.toPrecision(3))} ${units}`.trim() : `${error.toFixed(1)} %`;
  }

  // ---- charts that follow the player

  point(chart) {
    const { left, right, low, high } = chart.dataset, visible = this.ahead > 0 ? "visible" : "hidden";
    const x = Number(left) + ((this.ahead - low) / (high - low)) * (right - left), cursor = find(".cursor", chart);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", visible);
    for (const dot of all(".dot", chart)) {
      dot.points ||= JSON.parse(dot.dataset.points);
      const nearest = dot.points.find((point) => Math.abs(point[0] - x) < 0.6);
      dot.setAttribute("visibility", nearest ? visible : "hidden");
      if (nearest) dot.setAttribute("cx", nearest[0]), dot.setAttribute("cy", nearest[1]);
    }
  }

  follow(chart) {
    const seek = (event) => {
      const { left, right, low, high } = chart.dataset, box = chart.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const ahead = Number(low) + ((x - left) / (right - left)) * (high - low);
      this.stop();
      this.seek(this.given.length - 1 + Math.max(1, ahead));
    };
    chart.addEventListener("pointerdown", seek);
    chart.addEventListener("pointermove", (event) => event.buttons && seek(event));
  }

  // ---- hands

  drag(canvas) {
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      from = { x: event.clientX, at: this.at, moved: false };
      canvas.setPointerCapture(event.pointerId);
      if (this.swiped) this.divide(canvas, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const moved = event.clientX - from.x;
      from.moved ||= Math.abs(moved) > 6;
      if (this.swiped) return this.divide(canvas, event);
      if (!from.moved) return;
      this.stop();
      this.seek(from.at + (moved / canvas.getBoundingClientRect().width) * this.total);
    });
    canvas.addEventListener("pointerup", () => {
      if (from && !from.moved && !this.swiped) this.toggle();
      from = null;
    });
    canvas.addEventListener("pointercancel", () => (from = null));
  }

  divide(canvas, event) {
    const box = canvas.getBoundingClientRect();
    this.divider.value = (100 * (event.clientX - box.left)) / box.width;
    this.draw();
  }

  listen() {
    this.play.addEventListener("click", () => this.toggle());
    this.position.addEventListener("input", () => (this.stop(), this.seek(Number(this.position.value))));
    for (const control of [this.divider, this.overlay, this.rival]) control.addEventListener("input", () => this.draw());
    for (const choice of all(".view input", this.element)) {
      choice.addEventListener("change", () => (this.arrange(), this.draw()));
    }
    this.charts.forEach((chart) => this.follow(chart));
  }

  // Whether a key was for this player.
  key(event) {
    const on = event.target.closest("button, select, summary, a, input");
    if (event.key === " " && (!on || on.type === "range")) this.toggle();
    else if (on && (on.tagName === "SELECT" || on.type === "radio" || on === this.divider)) return false;
    else if (event.key === "ArrowRight") this.stop(), this.seek(this.at + 1);
    else if (event.key === "ArrowLeft") this.stop(), this.seek(this.at - 1);
    else if (event.key === "Home") this.stop(), this.seek(0);
    else if (event.key === "End") this.stop(), this.seek(this.total - 1);
    else return false;
    return true;
  }
}

const players = all(".player").map((element) => new Player(element));

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !players.length) return;
  if (players[0].key(event)) event.preventDefault();
});

// What opens a clip: a point of a scatter, a button, a list.
function open(number) {
  const [player] = players, was = player.playing;
  for (const button of all("button[data-clip]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.clip) === number));
  }
  for (const list of all("select.clips")) list.value = String(number);
  player.open(number).then(() => (was ? null : player.start()));
}
for (const opener of all("[data-clip]")) opener.addEventListener("click", () => open(Number(opener.dataset.clip)));
for (const list of all("select.clips")) list.addEventListener("input", () => open(Number(list.value)));

// Samples over time: one picture of many, chosen by a slider.
for (const sample of all(".sample")) {
  const slider = find("input", sample), image = find("img", sample), label = find("output", sample);
  const pictures = stored(sample.dataset.pictures);
  const show = () => {
    const [name, address] = pictures[slider.value];
    image.src = address;
    image.alt = `Film strip of ${name}: truth, prediction and error of the worst evaluation clip`;
    label.textContent = name;
    slider.setAttribute("aria-valuetext", name);
  };
  slider.max = pictures.length - 1;
  slider.value = pictures.length - 1;
  slider.addEventListener("input", show);
  show();
}
