/** The picture of a recording: waveform, band of scores, row of segments, time axis. Colours are the style sheet's. */

import { colourOf } from "./scores.js";
import { SILENCE, clock, percent } from "./timeline.js";

const WAVE = 92; // px
const GAP = 10;
const BAND = 112;
const HEIGHT = WAVE + GAP + BAND;
const NARROWEST = 3; // px: columns of the band; narrower cells are averaged
const THIN = 8; // px: a narrower segment would be all border
const NAMED = 36; // px: there is room for a name, or for its beginning
const QUIETEST = 0.05; // full scale: louder recordings fill the height; noise alone does not
const LABEL_SPACE = 74; // px between two times on the axis
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400]; // seconds

const find = (id) => document.getElementById(id);

/**
 * @typedef {{from: number, to: number, labels: string[], hop: number, cells: import("./timeline.js").Cell[],
 *            segments: import("./timeline.js").Segment[], envelope: import("./envelope.js").Envelope | null}} Picture
 *   from, to: the seconds that are in view; while recording there is not yet something everywhere
 */

/** @param {Picture} picture */
export function draw({ from, to, labels, hop, cells, segments, envelope }) {
  const width = find("picture").clientWidth;
  const scale = width / (to - from); // px a second
  const x = (time) => round((time - from) * scale);
  find("drawing").setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  set("stage", { y: WAVE + GAP, width, height: BAND });
  drawWave(envelope, width, from, scale);
  drawBand(labels, columnsOf(cells, from, to, Math.ceil(NARROWEST / (hop * scale))), x);
  find("no-wave").hidden = envelope !== null;
  const seen = segments.filter(({ start, end }) => end > from && start < to);
  find("segments").replaceChildren(...seen.map((segment) => segmentOf(segment, labels, x, width)));
  find("axis").replaceChildren(...ticksOf(from, to, scale, x));
}

function drawWave(envelope, width, from, scale) {
  const past = envelope ? Math.max(0, Math.min(width, Math.ceil((envelope.seconds - from) * scale))) : 0;
  const levels = Array.from({ length: past }, (_, x) => envelope.between(from + x / scale, from + (x + 1) / scale));
  const zoom = 1 / Math.max(QUIETEST, envelope?.loudest ?? 0);
  set("peaks", { d: outlineOf(levels.map(({ peak }) => peak * zoom)) });
  set("loudness", { d: outlineOf(levels.map(({ loudness }) => loudness * zoom)) });
}

/** A column a pixel, as far up as down. */
function outlineOf(heights) {
  if (!heights.length) return "";
  const middle = WAVE / 2;
  const tall = heights.map((height) => Math.max(0.5, height * middle)); // silence is a line
  const above = tall.map((pixels, x) => `${x} ${round(middle - pixels)}`);
  const below = tall.map((pixels, x) => `${x} ${round(middle + pixels)}`).reverse();
  return `M${above.join("L")}L${below.join("L")}Z`;
}

/** The cells in view, averaged by the few, the same ones wherever one scrolls, where there is no room for each. */
function columnsOf(cells, from, to, together) {
  const columns = [];
  for (let at = 0; at < cells.length && cells[at].start < to; at += together) {
    const last = cells[Math.min(at + together, cells.length) - 1];
    if (last.end <= from) continue;
    const group = cells.slice(at, at + together);
    const heard = group.filter((cell) => cell.scores);
    const mean = (_, i) => heard.reduce((sum, cell) => sum + cell.scores[i], 0) / heard.length;
    const scores = 2 * heard.length >= group.length ? heard[0].scores.map(mean) : null;
    columns.push({ start: cells[at].start, end: last.end, scores });
  }
  return columns;
}

/** One path an emotion, not one element a score: an hour has 3,600 cells. */
function drawBand(labels, columns, x) {
  const paths = labels.map(() => "");
  let silences = "";
  for (const { start, end, scores } of columns) {
    const [left, right] = [x(start), x(end)];
    const wide = round(right - left - (right - left > THIN ? 1 : 0));
    if (!scores) silences += `M${left} ${WAVE + GAP}h${round(right - left)}v${BAND}H${left}z`;
    let top = WAVE + GAP;
    scores?.forEach((score, i) => {
      const tall = round(score * BAND);
      paths[i] += `M${left} ${round(top)}h${wide}v${tall}H${left}z`;
      top += score * BAND;
    });
  }
  set("silences", { d: silences });
  const band = find("band");
  while (band.children.length > labels.length) band.lastChild.remove();
  while (band.children.length < labels.length) {
    band.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  }
  paths.forEach((d, i) => {
    band.children[i].setAttribute("d", d);
    band.children[i].setAttribute("class", colourOf(i));
  });
}

/** As much of it as is in view, so that the name of a long one is. */
function segmentOf({ start, end, label, score }, labels, x, width) {
  const [left, right] = [Math.max(0, x(start)), Math.min(width, x(end))];
  const box = document.createElement("div");
  box.className = label === SILENCE ? "silence" : colourOf(labels.indexOf(label));
  box.classList.toggle("thin", right - left < THIN);
  box.style.left = `${left}px`;
  box.style.width = `${right - left}px`;
  box.title = `${label}${label === SILENCE ? "" : ` ${percent(score)}`}, ${clock(start)} to ${clock(end)}`;
  if (right - left >= NAMED) {
    const name = document.createElement("span");
    name.textContent = label;
    box.append(name);
  }
  return box;
}

function ticksOf(from, to, scale, x) {
  const step = STEPS.find((candidate) => candidate * scale >= LABEL_SPACE) ?? STEPS.at(-1);
  const first = Math.ceil(from / step - 1e-6);
  const last = Math.floor((to - LABEL_SPACE / 2 / scale) / step); // after it there is no room for a label
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const time = (first + i) * step;
    const tick = document.createElement("span");
    tick.textContent = clock(time).replace(step < 1 ? "" : /\.0$/, "");
    tick.style.left = `${x(time)}px`;
    return tick;
  });
}

function set(id, attributes) {
  for (const [name, value] of Object.entries(attributes)) find(id).setAttribute(name, value);
}

const round = (pixels) => Math.round(pixels * 100) / 100;
