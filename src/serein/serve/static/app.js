/** The page: a recording comes in, by file or by microphone, and its timeline is shown. */

import { unless } from "./cancel.js";
import { ServerError, fetchModel, fetchTimeline, predict } from "./client.js";
import { decodeEnvelope } from "./envelope.js";
import { startLive } from "./live.js";
import { open, refresh } from "./result.js";
import { clock, percent } from "./timeline.js";

/** @typedef {import("./result.js").Recording} Recording */

const REDRAW = 80; // milliseconds between two pictures of a recording that grows

const parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((part) => [part.id, part]));

let limits = {}; // of the server
/** @type {Recording | null} */
let shown = null; // the recording on the page
let wanted = null; // the one that is to be there: another one while it is being analysed
let work = new AbortController(); // of what runs: an analysis, the asking for a microphone, the end of a recording
let phase = "idle"; // of the microphone: idle, asking, live, finishing; only while it is idle may anything else begin
let live = null; // while the phase is live

const settings = () => ({ window: Number(parts.window.value), hop: Number(parts.hop.value) });
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

function say(text, { busy = false } = {}) {
  if (parts["status-text"].textContent !== text) parts["status-text"].textContent = text;
  if (!busy && document.activeElement === parts.cancel) (phase === "idle" ? parts.drop : parts.record).focus();
  parts.status.classList.toggle("busy", busy);
  parts.cancel.hidden = !busy;
  parts.result.setAttribute("aria-busy", String(busy));
  if (text) parts.error.textContent = "";
}

/** @param {Error} error its message is for the user, but the server's begin and end like half a sentence */
function fail({ message }, before = "") {
  say("");
  const text = message[0].toUpperCase() + message.slice(1);
  parts.error.textContent = before + (/[.!?]$/.test(text) ? text : `${text}.`);
}

/** Whatever else runs is not wanted any more. @returns {AbortSignal} of what begins now */
function begin(text) {
  work.abort();
  work = new AbortController();
  say(text, { busy: true });
  return work.signal;
}

/** The page stays as it was, and so must the settings: they say how what is shown was made. */
function revert() {
  wanted = shown;
  if (!shown) return;
  parts.window.value = shown.settings.window;
  parts.hop.value = shown.settings.hop;
  matchHop();
}

/** @param {{name: string, sound: Blob, made: boolean} & Partial<Recording>} recording what is known of it is kept */
async function analyse(recording) {
  const { name } = recording;
  const signal = begin(`Listening to ${name} …`);
  const chosen = settings();
  wanted = recording;
  try {
    checkSize(recording.sound);
    if (recording.sound instanceof File) recording.sound = await inMemory(recording.sound);
    const { sound } = recording;
    const drawing = recording.envelope === undefined ? decodeEnvelope(sound) : recording.envelope;
    recording.answer ??= await predict(sound, signal); // a file that is refused is not sent twice
    const timeline = await fetchTimeline(sound, chosen, signal);
    const envelope = await unless(signal, Promise.resolve(drawing));
    show({ ...recording, live: false, settings: chosen, envelope, timeline });
  } catch (error) {
    if (signal !== work.signal) return; // something else has begun
    revert();
    if (signal.aborted) return say("Cancelled.");
    wanted ??= recording; // other settings may be less work
    fail(error, `${name} was not analysed. `);
    if (!(error instanceof ServerError)) throw error;
  }
}

/** Said here, since a server that stops reading a large body may not get its own words through. */
function checkSize(sound) {
  if (sound.size <= (limits.body_bytes ?? Infinity)) return;
  const [size, most] = [sound.size, limits.body_bytes].map(megabytes);
  throw new ServerError(`This file has ${size}; the server takes at most ${most}.`);
}

/** A file may change on the disk; all that is heard, drawn and played must be one sound. */
async function inMemory(file) {
  try {
    return new Blob([await file.arrayBuffer()], { type: file.type });
  } catch {
    throw new ServerError("It cannot be read. Is it a folder, or was it changed since you chose it? Choose it again.");
  }
}

/** @param {Recording} recording */
function show(recording, how = "Done") {
  const { answer, timeline, envelope } = recording;
  wanted = shown = recording;
  const word = open(recording);
  const verdict = word === answer?.label ? `${word}, ${percent(answer.scores[0].score)}` : word;
  const windows = timeline.windows.length === 1 ? "1 window" : `${timeline.windows.length} windows`;
  const blind = envelope ? "" : " No waveform."; // the reason stands inside the slider, where it is not read out
  say(`${how}: ${verdict}; ${windows} in ${clock(timeline.seconds)}.${blind}`);
}

async function record() {
  if (phase !== "idle") return;
  enter("asking");
  const signal = begin("Waiting for the microphone …");
  const chosen = settings();
  let due = 0;
  const onChange = () => {
    const now = performance.now();
    if (phase !== "live" || now < due) return;
    const { windows, seconds } = live.recording.timeline;
    parts["record-note"].textContent = clock(seconds);
    const word = refresh();
    say(windows.length ? `Recording: ${word}.` : `Recording. First scores after ${chosen.window} s.`);
    const cost = performance.now() - now; // of a picture of an hour; the page must stay free for other things
    due = now + cost + Math.max(REDRAW, 4 * cost);
  };
  try {
    live = await startLive(chosen, onChange, stop, signal);
    open(live.recording);
    enter("live");
    say("Recording …");
  } catch (error) {
    enter("idle");
    revert();
    if (signal.aborted) say("Cancelled.");
    else fail(error);
  }
}

/** @param {Error} [reason] why, where it was not the user */
async function stop(reason) {
  if (phase !== "live") return;
  const { recording, stop: end } = live;
  live = null;
  enter("finishing");
  const signal = begin("Finishing …");
  let fault = reason;
  try {
    await end(signal);
    const whole = recording.sound.size <= limits.body_bytes && recording.timeline.seconds <= limits.audio_seconds;
    if (whole) recording.answer = await predict(recording.sound, signal);
  } catch (error) {
    if (!signal.aborted) fault ??= error;
  }
  enter("idle");
  const how = signal.aborted ? "Cancelled" : "Done";
  if (recording.timeline.windows.length) show(recording, how);
  else {
    say(`${how}: nothing was heard.`);
    if (shown) open(shown);
    else parts.result.hidden = true;
    revert();
  }
  if (fault) fail(fault);
}

function enter(next) {
  phase = next;
  const on = phase === "live";
  parts.record.classList.toggle("on", on);
  // not disabled: it has been pressed just now, and would lose the keyboard's focus
  parts.record.setAttribute("aria-disabled", String(phase === "asking" || phase === "finishing"));
  parts["record-label"].textContent = on ? "Stop" : "Record";
  parts["record-note"].textContent = on ? clock(0) : "scores while you speak";
  for (const part of [parts.drop, parts.window, parts.hop]) part.disabled = phase !== "idle";
}

function take(files) {
  if (files.length && phase === "idle") analyse({ name: files[0].name, sound: files[0], made: false });
}

/** A hop longer than the window would leave gaps. */
function matchHop() {
  for (const option of parts.hop.options) option.disabled = Number(option.value) > Number(parts.window.value);
  if (parts.hop.selectedOptions[0].disabled) parts.hop.value = parts.window.value;
}

parts.drop.addEventListener("click", () => parts.file.click());
parts.file.addEventListener("change", () => {
  take(parts.file.files);
  parts.file.value = ""; // the same file may be chosen again
});
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault(); // a file that misses the zone does not replace the page
    const welcome = phase === "idle";
    if (!welcome) event.dataTransfer.dropEffect = "none";
    parts.drop.classList.toggle("over", welcome && (type === "dragenter" || type === "dragover"));
    if (type === "drop") take(event.dataTransfer.files);
  });
}
parts.record.addEventListener("click", () => (phase === "live" ? stop() : record()));
parts.cancel.addEventListener("click", () => work.abort()); // what runs says so itself
for (const setting of [parts.window, parts.hop]) {
  setting.addEventListener("change", () => {
    matchHop();
    if (wanted) analyse(wanted);
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
