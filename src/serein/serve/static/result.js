/** Shows a recording: its answer, its picture, its place, its tables. */

import { draw } from "./drawing.js";
import { makePlayer } from "./player.js";
import { colourOf, listScores } from "./scores.js";
import { FORMATS, save } from "./tables.js";
import { SILENCE, cellsOf, clock, heardOf, mergeCells, percent } from "./timeline.js";
import { makeView } from "./view.js";

/**
 * @typedef {import("./timeline.js").Timeline} Timeline
 * @typedef {{name: string, live: boolean, sound: Blob | null, made: boolean, settings: {window: number, hop: number},
 *            envelope: import("./envelope.js").Envelope | null, answer: import("./client.js").Answer | null,
 *            timeline: Timeline}} Recording
 *   made: the sound was recorded here, so that the user has it nowhere else
 */

const SHORTEST_LIVE_VIEW = 15; // seconds that the width stands for; doubled whenever the recording outgrows it
const UNHEARD = 0.1; // seconds at the end that nobody misses: a window needs a frame

const parts = Object.fromEntries([...document.querySelectorAll("#result [id]")].map((part) => [part.id, part]));
const result = document.getElementById("result");

/** @type {Recording | null} */
let shown = null;
let cells = [];
let segments = [];
let showScores; // in the bars on top
let showLegend; // under the picture

const view = makeView(parts, () => shown && !result.hidden && paint());
const player = makePlayer(parts, view, (time) => {
  const { live, timeline } = shown;
  const judged = cells.length && (live || time <= heardOf(timeline) + UNHEARD);
  const scores = judged ? cells[Math.min(cells.length - 1, Math.floor(time / timeline.hop + 1e-6))].scores : null;
  showLegend(scores);
  if (!judged) return live ? "no scores yet" : "not heard by the server";
  return scores ? inWords(scores, timeline.labels) : SILENCE;
});

/** Show another recording. @param {Recording} recording @returns {string} what it sounds like, in a word */
export function open(recording) {
  shown = recording;
  showScores = listScores(parts.scores, recording.timeline.labels);
  showLegend = listScores(parts.legend, recording.timeline.labels);
  result.hidden = false;
  player.load(recording.sound);
  parts["save-sound"].hidden = !recording.made;
  for (const button of parts.downloads.querySelectorAll("button")) button.disabled = recording.live;
  return refresh();
}

/** Show what has changed in the recording that is open. @returns {string} what it sounds like, in a word */
export function refresh() {
  const { timeline, live, name } = shown;
  cells = cellsOf(timeline);
  segments = live ? mergeCells(cells, timeline.labels) : timeline.segments;
  view.span(live ? liveView(timeline.seconds) : timeline.seconds, !live);
  paint();
  player.span({ seconds: timeline.seconds, step: timeline.hop, live });
  parts.source.textContent = live ? `${name} · live` : `${name} · ${clock(timeline.seconds)}`;
  parts.rows.replaceChildren(...(live ? [] : segments.map(rowOf)));
  return live ? showLast(timeline) : showWhole(shown);
}

function paint() {
  const { timeline, envelope } = shown;
  draw({ ...view.range(), labels: timeline.labels, hop: timeline.hop, cells, segments, envelope });
}

function liveView(seconds) {
  let view = SHORTEST_LIVE_VIEW;
  while (view < seconds) view *= 2;
  return view;
}

function showLast({ windows, labels }) {
  const last = windows.at(-1);
  const scores = last && !last.silent ? labels.map((label) => last.scores[label]) : null;
  parts.scores.setAttribute("aria-label", "Scores of the last window");
  showScores(scores);
  parts.notes.textContent = last ? `the last ${(last.end - last.start).toFixed(1)} s` : "";
  return scores ? showBest(scores, labels) : showAnswer(last ? SILENCE : "listening …", labels);
}

function showWhole({ answer, timeline }) {
  const { labels, seconds } = timeline;
  parts.scores.setAttribute("aria-label", "Scores of the whole recording");
  const heard = cells.filter((cell) => cell.scores);
  const means = labels.map((_, i) => heard.reduce((sum, cell) => sum + cell.scores[i], 0) / heard.length);
  const ofLabel = (label) => answer.scores.find((score) => score.label === label)?.score ?? 0;
  const scores = !heard.length ? null : answer ? labels.map(ofLabel) : means; // a model names silence something, too
  const unsure = scores && answer?.label === null;
  showScores(scores);

  const notes = [answer ? "the whole recording" : "average over the timeline"];
  if (!scores) notes.push("too quiet for speech");
  if (unsure) notes.push("no score is high enough to name one emotion");
  if (heardOf(timeline) < seconds - UNHEARD) notes.push(`the server heard the first ${clock(heardOf(timeline))} only`);
  const warnings = new Set([...(answer?.warnings ?? []), ...(timeline.warnings ?? [])]); // of the file: in both
  parts.notes.textContent = [...notes, ...warnings].join(" · ");

  if (!scores) return showAnswer(SILENCE, labels);
  return unsure ? showAnswer("not sure", labels) : showBest(scores, labels);
}

function showBest(scores, labels) {
  const best = scores.indexOf(Math.max(...scores));
  return showAnswer(labels[best], labels, scores[best]);
}

function showAnswer(label, labels, score) {
  const index = labels.indexOf(label);
  const number = document.createElement("small");
  number.textContent = score === undefined ? "" : percent(score);
  parts.answer.className = index < 0 ? "" : colourOf(index);
  parts.answer.replaceChildren(label, " ", number);
  return label;
}

function rowOf({ start, end, label, score }) {
  const row = document.createElement("tr");
  for (const text of [clock(start), clock(end), label, label === SILENCE ? "" : percent(score)]) {
    row.insertCell().textContent = text;
  }
  return row;
}

/** The best three: a screen reader says this at each step. */
function inWords(scores, labels) {
  const order = labels.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  return order.slice(0, 3).map((i) => `${labels[i]} ${percent(scores[i])}`).join(", ");
}

parts.downloads.addEventListener("click", ({ target }) => {
  const stem = shown?.name.replace(/\.[^.]*$/, "");
  const format = FORMATS[target.dataset?.format];
  if (format) save(new Blob([format.write(shown.timeline, stem)], { type: format.type }), stem + format.suffix);
  else if (target === parts["save-sound"]) save(shown.sound, `${stem}.wav`);
});
