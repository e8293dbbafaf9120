/** Live scores: samples go up the WebSocket, windows come down. */

import { SILENT_SERVER, ServerError, refused } from "./client.js";

/**
 * @param {{rate: number, window: number, hop: number}} settings samples a second, seconds, seconds
 * @param {(window: import("./timeline.js").Window) => void} onWindow
 * @param {() => void} onFailure called at most once, if the stream ends before it is finished
 * @param {AbortSignal} signal ends the waiting for the server; later it changes nothing
 * @returns {Promise<{labels: string[],
 *                    send: (samples: Float32Array) => void,
 *                    finish: () => Promise<import("./timeline.js").Timeline>,
 *                    close: () => void}>} when the server is ready
 */
export async function openStream(settings, onWindow, onFailure, signal) {
  signal.throwIfAborted();
  const address = new URL("v1/stream", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  const [ready, isReady] = promised();
  const [whole, deliver, refuse] = promised();
  whole.catch(onFailure);

  let farewell = SILENT_SERVER;
  socket.addEventListener("open", () => {
    farewell = "The server ended the live connection.";
    socket.send(JSON.stringify({ ...settings, format: "f32" }));
  });
  socket.addEventListener("close", () => refuse(new ServerError(farewell)));
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "window") onWindow(message);
    else if (message.type === "ready") isReady(message);
    else if (message.type === "timeline") deliver(message);
    else if (message.type === "error") refuse(refused(message));
  });

  const close = () => {
    refuse(new ServerError(farewell)); // the close event may come when another recording has begun
    socket.close();
  };
  signal.addEventListener("abort", close);
  const { labels } = await Promise.race([ready, whole]).finally(() => signal.removeEventListener("abort", close));
  const send = (data) => socket.readyState === WebSocket.OPEN && socket.send(data);
  return {
    labels,
    send,
    finish: () => {
      send(JSON.stringify({ type: "finish" }));
      return whole;
    },
    close,
  };
}

function promised() {
  let settle;
  const promise = new Promise((...both) => (settle = both));
  return [promise, ...settle];
}
