/** AudioWorklet: hands the microphone's samples to the page, in blocks, so that there are not 375 messages a second. */

const BLOCK = 2048; // samples: 43 ms at 48 kHz

class Pcm extends AudioWorkletProcessor {
  block = new Float32Array(BLOCK);
  filled = 0;

  process([[channel]]) {
    if (!channel) return true; // the microphone is not connected yet
    this.block.set(channel, this.filled); // blocks of 128 samples divide BLOCK: there is always room
    this.filled += channel.length;
    if (this.filled === BLOCK) {
      this.port.postMessage(this.block, [this.block.buffer]);
      this.block = new Float32Array(BLOCK);
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("pcm", Pcm);
