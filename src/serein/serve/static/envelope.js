/** Peak and loudness of short pieces of sound: all that drawing a waveform needs. */

const PIECE = 0.005; // seconds: finer than a pixel, where a view shows five seconds or more

/** Grows as sound comes; memory is 3,200 bytes a second. */
export class Envelope {
  /** @param {number} rate samples a second */
  constructor(rate) {
    this.rate = rate;
    this.size = Math.round(rate * PIECE); // samples a piece
    this.samples = 0;
    this.loudest = 0;
    this.peaks = [];
    this.powers = []; // sums of squares
  }

  get seconds() {
    return this.samples / this.rate;
  }

  /** @param {Float32Array} block */
  add(block) {
    for (const sample of block) {
      const piece = Math.floor(this.samples++ / this.size);
      if (piece === this.peaks.length) {
        this.peaks.push(0);
        this.powers.push(0);
      }
      const height = Math.abs(sample);
      if (height > this.peaks[piece]) this.peaks[piece] = height;
      if (height > this.loudest) this.loudest = height;
      this.powers[piece] += height * height;
    }
  }

  /** @returns {{peak: number, loudness: number}} highest |sample| and root of the mean square between two times */
  between(start, end) {
    const first = Math.floor((start * this.rate) / this.size);
    const past = Math.max(first + 1, Math.floor((end * this.rate) / this.size));
    let [peak, power] = [0, 0];
    for (let piece = first; piece < Math.min(past, this.peaks.length); piece++) {
      peak = Math.max(peak, this.peaks[piece]);
      power += this.powers[piece];
    }
    return { peak, loudness: Math.sqrt(power / ((past - first) * this.size)) };
  }
}

/**
 * Decode a file in the browser, at 16 kHz: that is what the model hears, and a third of the memory.
 *
 * @param {Blob} recording
 * @returns {Promise<Envelope | null>} null where this browser cannot decode it
 */
export async function decodeEnvelope(recording) {
  const context = new OfflineAudioContext(1, 1, 16000);
  let sound;
  try {
    sound = await context.decodeAudioData(await recording.arrayBuffer());
  } catch {
    return null; // browsers report anything from an unknown format to a lack of memory here
  }
  const mono = sound.getChannelData(0);
  for (let channel = 1; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((sample, i) => (mono[i] += sample));
  }
  const envelope = new Envelope(sound.sampleRate);
  envelope.add(mono.map((sample) => sample / sound.numberOfChannels));
  return envelope;
}
