/** What the server is asked over HTTP. Addresses are relative, so that the page works behind a path prefix. */

/**
 * @typedef {{label: string, score: number}} Score
 * @typedef {{scores: Score[], label: string | null, seconds: number, warnings: string[]}} Answer
 *   scores are best first; a null label: no score is high enough to name one
 * @typedef {{name: string, labels: string[], abstain_below: number, limits: Record<string, number>}} Model
 */

/** An answer that is not the wished one; the message is for the user. */
export class ServerError extends Error {}

export const SILENT_SERVER = "The server does not answer. Is it still running?";

/** By the server's codes. Its own words for these are for the command line, or for who wrote the file's bytes. */
const WORDS = {
  unsupported_audio: "This is not audio that the server can decode. WAV, FLAC, MP3, Ogg, AIFF and CAF are.",
  corrupt_audio: "This recording is damaged or incomplete. Copy it again, or export it again from its source.",
  too_short: "This recording is too short: there must be 25 ms of sound at the least.",
  non_finite_audio: "This recording holds samples that are not numbers. Export it again from its source.",
  bad_query: "This is too long for windows that begin so often. Choose a longer step, or shorter windows.",
};

/** @param {{code: string, message: string}} refusal the server's @returns {ServerError} in words for the page */
export const refused = ({ code, message }) =>
  new ServerError(WORDS[code] ?? message.replace("this recording: ", "this recording "));

/** @returns {Promise<Model>} */
export const fetchModel = () => ask("v1/model");

/** @param {Blob} recording @param {AbortSignal} signal @returns {Promise<Answer>} */
export const predict = (recording, signal) => ask("v1/predict", post(recording, signal));

/**
 * @param {Blob} recording
 * @param {{window: number, hop: number}} settings seconds
 * @param {AbortSignal} signal
 * @returns {Promise<import("./timeline.js").Timeline>}
 */
export const fetchTimeline = (recording, settings, signal) =>
  ask(`v1/timeline?${new URLSearchParams(settings)}`, post(recording, signal));

function post(recording, signal) {
  return { method: "POST", body: recording, headers: { "Content-Type": "application/octet-stream" }, signal };
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(SILENT_SERVER);
  }
  const body = await response.json().catch(() => null); // a proxy's error page is not JSON
  options?.signal?.throwIfAborted(); // while the answer came
  if (response.ok && body) return body;
  if (body?.error) throw refused(body.error);
  throw new ServerError(`The server answered ${response.status} ${response.statusText}.`);
}
