/** The page: a recording comes in, by file or by microphone, and its timeline is shown. */

import { ServerError, fetchModel, fetchTimeline, predict } from "./client.js";
import { decodeEnvelope } from "./envelope.js";
import { startLive } from "./live.js";
import { open, refresh } from "./result.js";
import { clock, percent } from "./timeline.js";

const REDRAW = 80; // milliseconds between two pictures of a recording that grows

const parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((part) => [part.id, part]));

let limits = {}; // of the server
let analysed = null; // the recording on the page: {name, sound, made, envelope}
let analysis = new AbortController(); // the one that runs
let live = null; // while the microphone is open
let opening = false; // the microphone

const settings = () => ({ window: Number(parts.window.value), hop: Number(parts.hop.value) });
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

function say(text, { busy = false } = {}) {
  if (parts["status-text"].textContent !== text) parts["status-text"].textContent = text;
  parts.status.classList.toggle("busy", busy);
  parts.cancel.hidden = !busy;
  parts.result.setAttribute("aria-busy", String(busy));
  if (text) parts.error.textContent = "";
}

/** @param {Error} error its message is for the user, but the server's begin and end like half a sentence */
function fail({ message }) {
  say("");
  const text = message[0].toUpperCase() + message.slice(1);
  parts.error.textContent = /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Whatever else is being analysed is not wanted any more. */
function begin() {
  analysis.abort();
  analysis = new AbortController();
  return analysis.signal;
}

/** @param {{name: string, sound: Blob, made: boolean, envelope?: import("./envelope.js").Envelope | null}} recording */
async function analyse(recording) {
  const signal = begin();
  const { name, sound } = recording;
  say(`Listening to ${name} …`, { busy: true });
  try {
    checkSize(sound);
    const drawing = recording.envelope ?? decodeEnvelope(sound);
    const answer = await predict(sound, signal); // a file that is refused is not sent twice
    const timeline = await fetchTimeline(sound, settings(), signal);
    const envelope = await drawing;
    if (signal.aborted) return;
    show({ ...recording, live: false, envelope, answer, timeline });
  } catch (error) {
    if (signal.aborted) return;
    fail(error);
    if (!(error instanceof ServerError)) throw error;
  }
}

/** Said here, since a server that stops reading a large body may not get its own words through. */
function checkSize(sound) {
  if (sound.size <= (limits.body_bytes ?? Infinity)) return;
  const [size, most] = [sound.size, limits.body_bytes].map(megabytes);
  throw new ServerError(`This file has ${size}; the server takes at most ${most}.`);
}

function show(recording) {
  const { answer, timeline, envelope } = recording;
  analysed = recording;
  open(recording);
  const verdict = answer && (answer.label ? `${answer.label}, ${percent(answer.scores[0].score)}; ` : "not sure; ");
  const windows = timeline.windows.length === 1 ? "1 window" : `${timeline.windows.length} windows`;
  const blind = envelope ? "" : " No waveform."; // the reason stands inside the slider, where it is not read out
  say(`Done: ${verdict ?? ""}${windows} in ${clock(timeline.seconds)}.${blind}`);
}

async function record() {
  if (opening) return;
  opening = true;
  begin();
  say("Waiting for the microphone …");
  let drawn = 0;
  const onChange = () => {
    if (!live || performance.now() - drawn < REDRAW) return;
    drawn = performance.now();
    const { windows, seconds } = live.recording.timeline;
    parts["record-note"].textContent = clock(seconds);
    const word = refresh();
    say(windows.length ? `Recording: ${word}.` : `Recording. First scores after ${settings().window} s.`);
  };
  try {
    live = await startLive(settings(), onChange, stop);
    open(live.recording);
    showRecording(true);
  } catch (error) {
    fail(error);
  }
  opening = false;
}

async function stop() {
  if (!live) return;
  const { recording, stop: end } = live;
  const signal = begin();
  live = null;
  showRecording(false);
  say("Finishing …", { busy: true });
  try {
    await end();
    const whole = recording.sound.size <= limits.body_bytes && recording.timeline.seconds <= limits.audio_seconds;
    if (whole) recording.answer = await predict(recording.sound, signal);
    if (signal === analysis.signal) show(recording); // else another recording has come in
  } catch (error) {
    if (signal !== analysis.signal) return;
    if (recording.timeline.windows.length) show(recording);
    else parts.result.hidden = true;
    if (!signal.aborted) fail(error);
  }
}

function showRecording(on) {
  parts.record.classList.toggle("on", on);
  parts["record-label"].textContent = on ? "Stop" : "Record";
  parts["record-note"].textContent = on ? clock(0) : "scores while you speak";
  for (const part of [parts.drop, parts.window, parts.hop]) part.disabled = on;
}

function take(files) {
  if (files.length && !live) analyse({ name: files[0].name, sound: files[0], made: false });
}

parts.drop.addEventListener("click", () => parts.file.click());
parts.file.addEventListener("change", () => {
  take(parts.file.files);
  parts.file.value = ""; // the same file may be chosen again
});
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault(); // a file that misses the zone does not replace the page
    parts.drop.classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type === "drop") take(event.dataTransfer.files);
  });
}
parts.record.addEventListener("click", () => (live ? stop() : record()));
parts.cancel.addEventListener("click", () => {
  analysis.abort();
  say("Cancelled.");
});
for (const setting of [parts.window, parts.hop]) {
  setting.addEventListener("change", () => {
    // a hop longer than the window would leave gaps
    for (const option of parts.hop.options) option.disabled = Number(option.value) > Number(parts.window.value);
    if (parts.hop.selectedOptions[0].disabled) parts.hop.value = parts.window.value;
    if (analysed) analyse(analysed);
  });
}

try {
  const model = await fetchModel();
  ({ limits } = model);
  parts.model.textContent = `${model.name}: ${model.labels.join(", ")}`;
  const longest = limits.audio_seconds;
  const duration = longest < 120 ? `${longest} seconds` : `${Math.floor(longest / 60)} minutes`;
  parts.limits.textContent += ` · up to ${megabytes(limits.body_bytes)} and ${duration}`;
} catch (error) {
  fail(error);
}
