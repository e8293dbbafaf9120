/** A recording that is being made: the microphone's samples go to the server, and its windows come back. */

import { unless } from "./cancel.js";
import { Envelope } from "./envelope.js";
import { openMicrophone } from "./recorder.js";
import { openStream } from "./stream.js";
import { cellsOf, mergeCells } from "./timeline.js";
import { toWav } from "./wav.js";

/**
 * @param {{window: number, hop: number}} settings seconds
 * @param {() => void} onChange the recording has grown
 * @param {(reason?: Error) => void} onEnd the microphone is gone, or the server will send no more; stop() says why
 * @param {AbortSignal} signal ends the waiting for microphone and server; later it changes nothing
 * @returns {Promise<{recording: import("./result.js").Recording, stop: (signal: AbortSignal) => Promise<void>}>}
 *   stop: resolves when the recording has its sound and its whole timeline; where it throws, or is aborted, the sound
 *   is there, and the timeline as far as it came
 */
export async function startLive(settings, onChange, onEnd, signal) {
  const microphone = await unless(signal, openMicrophone(onEnd, signal));
  const timeline = { labels: [], hop: settings.hop, seconds: 0, windows: [], segments: [] };
  const envelope = new Envelope(microphone.rate);
  const blocks = [];
  const name = `recording ${new Date().toLocaleString("sv").replaceAll(":", "-")}`; // 2026-11-23 14-05-09
  const recording = { name, live: true, sound: null, made: true, settings, envelope, answer: null, timeline };

  const onWindow = (window) => {
    timeline.windows.push(window);
    onChange();
  };
  let stream;
  try {
    stream = await openStream({ rate: microphone.rate, ...settings }, onWindow, () => onEnd(), signal);
    microphone.check(); // it may have ended while nobody heeded onEnd
  } catch (error) {
    stream?.close();
    await microphone.close();
    throw error;
  }
  timeline.labels = stream.labels;
  microphone.listen((samples) => {
    blocks.push(samples);
    stream.send(samples);
    envelope.add(samples);
    timeline.seconds = envelope.seconds;
    onChange();
  });

  async function stop(signal) {
    await microphone.close();
    recording.live = false;
    recording.sound = toWav(blocks, microphone.rate);
    timeline.segments = mergeCells(cellsOf(timeline), timeline.labels); // till the server's own come
    try {
      recording.timeline = await unless(signal, stream.finish());
    } finally {
      stream.close();
    }
  }
  return { recording, stop };
}
