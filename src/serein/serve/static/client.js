/** What the server is asked over HTTP. Addresses are relative, so that the page works behind a path prefix. */

/**
 * @typedef {{label: string, score: number}} Score
 * @typedef {{scores: Score[], label: string | null, seconds: number, warnings: string[]}} Answer
 *   scores are best first; a null label: no score is high enough to name one
 * @typedef {{name: string, labels: string[], abstain_below: number, limits: Record<string, number>}} Model
 */

/** An answer that is not the wished one; the message is for the user. */
export class ServerError extends Error {}

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
    throw new ServerError("The server does not answer. Is it still running?");
  }
  const body = await response.json().catch(() => null); // a proxy's error page is not JSON
  if (response.ok && body) return body;
  throw new ServerError(body?.error?.message ?? `The server answered ${response.status} ${response.statusText}.`);
}
