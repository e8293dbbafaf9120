/** The picture of a recording: waveform, band of scores, row of segments, time axis. Colours are the style sheet's. */

import { colourOf } from "./scores.js";
import { SILENCE, clock, percent } from "./timeline.js";

const WAVE = 92; // px
const GAP = 10;
const BAND = 112;
const HEIGHT = WAVE + GAP + BAND;
const NARROWEST = 3; // px: columns of the band; narrower cells are averaged
const QUIETEST = 0.05; // full scale: louder recordings fill the height; noise alone does not
const LABEL_SPACE = 74; // px between two times on the axis
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400]; // seconds

const find = (id) => document.getElementById(id);

/**
 * @typedef {{seconds: number, labels: string[], cells: import("./timeline.js").Cell[],
 *            segments: import("./timeline.js").Segment[], envelope: import("./envelope.js").Envelope | null}} Picture
 *   seconds: what the whole width stands for; while recording it is more than there is
 */

/** @param {Picture} picture */
export function draw({ seconds, labels, cells, segments, envelope }) {
  const svg = find("drawing");
  const width = svg.parentElement.clientWidth;
  const x = (time) => round((time / seconds) * width);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  set("stage", { y: WAVE + GAP, width, height: BAND });
  drawWave(envelope, width, seconds);
  drawBand(labels, columnsOf(cells, Math.ceil((cells.length * NARROWEST) / Math.max(1, x(cells.at(-1)?.end ?? 0)))), x);
  find("no-wave").hidden = envelope !== null;
  find("segments").replaceChildren(...segments.map((segment) => segmentOf(segment, labels, width / seconds)));
  find("axis").replaceChildren(...ticksOf(seconds, width));
}

function drawWave(envelope, width, seconds) {
  const past = envelope ? Math.min(width, Math.ceil((envelope.seconds / seconds) * width)) : 0;
  const levels = Array.from({ length: past }, (_, x) =>
    envelope.between((x / width) * seconds, ((x + 1) / width) * seconds),
  );
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

/** Cells, averaged by the few where the width is too small to show each. */
function columnsOf(cells, together) {
  if (together <= 1) return cells;
  const columns = [];
  for (let at = 0; at < cells.length; at += together) {
    const group = cells.slice(at, at + together);
    const heard = group.filter((cell) => cell.scores);
    const mean = (_, i) => heard.reduce((sum, cell) => sum + cell.scores[i], 0) / heard.length;
    columns.push({
      start: group[0].start,
      end: group.at(-1).end,
      scores: 2 * heard.length >= group.length ? heard[0].scores.map(mean) : null,
    });
  }
  return columns;
}

/** One path an emotion, not one element a score: an hour has 3,600 cells. */
function drawBand(labels, columns, x) {
  const paths = labels.map(() => "");
  let silences = "";
  for (const { start, end, scores } of columns) {
    const [left, right] = [x(start), x(end)];
    const wide = round(right - left - (right - left > 8 ? 1 : 0));
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

function segmentOf({ start, end, label, score }, labels, scale) {
  const box = document.createElement("div");
  box.className = label === SILENCE ? "silence" : colourOf(labels.indexOf(label));
  box.style.left = `${start * scale}px`;
  box.style.width = `${(end - start) * scale}px`;
  box.title = `${label}${label === SILENCE ? "" : ` ${percent(score)}`}, ${clock(start)} to ${clock(end)}`;
  const name = document.createElement("span");
  name.textContent = label;
  box.append(name);
  return box;
}

function ticksOf(seconds, width) {
  const step = STEPS.find((candidate) => (candidate / seconds) * width >= LABEL_SPACE) ?? STEPS.at(-1);
  const last = seconds * (1 - LABEL_SPACE / 2 / width); // after it there is no room for a label
  return Array.from({ length: Math.floor(last / step) + 1 }, (_, i) => {
    const tick = document.createElement("span");
    tick.textContent = clock(i * step).replace(step < 1 ? "" : /\.0$/, "");
    tick.style.left = `${(100 * i * step) / seconds}%`;
    return tick;
  });
}

function set(id, attributes) {
  for (const [name, value] of Object.entries(attributes)) find(id).setAttribute(name, value);
}

const round = (pixels) => Math.round(pixels * 100) / 100;
