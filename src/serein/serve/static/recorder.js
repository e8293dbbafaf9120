/** The microphone, as blocks of mono float32 samples. */

import { SILENT_SERVER, ServerError } from "./client.js";

const GONE = "The microphone was disconnected.";

/**
 * @param {(reason: Error) => void} onEnd it was unplugged, or taken away
 * @param {AbortSignal} signal nobody waits any more: if the user allows it later, it is closed at once
 * @returns {Promise<{rate: number, listen: (onSamples: (samples: Float32Array) => void) => void,
 *                    check: () => void, close: () => Promise<void>}>}
 *   rate: samples a second; nothing is lost between opening and listening; check: throws if it has ended
 * @throws {Error} with a message for the user, when there is no microphone or it may not be used
 */
export async function openMicrophone(onEnd, signal) {
  const media = await askForMicrophone();
  const [track] = media.getAudioTracks();
  let context;
  const close = async () => {
    track.stop();
    await context?.close();
  };
  try {
    signal.throwIfAborted();
    context = new AudioContext();
    await context.audioWorklet.addModule(new URL("pcm.js", import.meta.url)).catch(() => {
      throw new ServerError(SILENT_SERVER); // the browser's words are about scripts
    });
    signal.throwIfAborted();
    const tap = new AudioWorkletNode(context, "pcm", { channelCount: 1, channelCountMode: "explicit" });
    context.createMediaStreamSource(media).connect(tap);
    tap.connect(context.destination); // its output is silence, but a node that leads nowhere is not run
    track.addEventListener("ended", () => onEnd(new Error(GONE)));
    const check = () => {
      if (track.readyState === "ended") throw new Error(GONE);
    };
    const listen = (onSamples) => (tap.port.onmessage = ({ data }) => onSamples(data)); // until then the port queues
    return { rate: context.sampleRate, listen, check, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function askForMicrophone() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the microphone only to pages over https or on localhost.");
  }
  try {
    // what is meant for phone calls changes how a voice sounds, and the model has not heard it so
    const unprocessed = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    return await navigator.mediaDevices.getUserMedia({ audio: unprocessed });
  } catch (error) {
    if (error.name === "NotAllowedError") throw new Error("The browser does not let this page use the microphone.");
    if (error.name === "NotFoundError") throw new Error("No microphone was found.");
    throw new Error(`The microphone cannot be used: ${error.message}`);
  }
}
