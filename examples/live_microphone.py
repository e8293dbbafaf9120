"""Bars in the terminal that move with the voice, from any program that writes raw samples.

Usage:  arecord -q -t raw -f FLOAT_LE -r 16000 -c 1 | python examples/live_microphone.py MODEL
        rec -q -t raw -e floating-point -b 32 -r 16000 -c 1 - | python examples/live_microphone.py MODEL
        ffmpeg -v error -i call.mp3 -f f32le -ar 16000 -ac 1 - | python examples/live_microphone.py MODEL
"""

import argparse
import sys
from typing import BinaryIO

import numpy as np

from serein import EmotionRecognizer
from serein.errors import SereinError

CHUNK = 4 * 1_600  # bytes: a tenth of a second at 16 kHz
BAR = 40  # characters


def live(model: str, source: BinaryIO, window: float, hop: float, encoder: str | None = None) -> int:
    """Draw the scores of each window as it ends; return how many there were."""
    recognizer = EmotionRecognizer.from_pretrained(model, encoder=encoder)
    stream = recognizer.stream(window=window, hop=hop, rate=16_000)
    width = max(map(len, recognizer.labels))
    drawn = 0
    while True:
        chunk = source.read(CHUNK)
        whole = len(chunk) // 4 * 4  # a pipe may end within a sample
        heard = stream.feed(np.frombuffer(chunk[:whole], dtype="<f4")) if chunk else stream.finish()
        for seen in heard:
            drawn += 1
            print(f"\n{seen.start:7.1f} to {seen.end:.1f} s{'  silence' if seen.silent else ''}")
            for label, score in zip(recognizer.labels, seen.scores, strict=True):
                print(f"  {label:<{width}} {'█' * round(BAR * score):<{BAR}} {score:.2f}", flush=True)
        if not chunk:
            return drawn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder from `serein train`, or a Hub id")
    parser.add_argument("--window", type=float, default=3.0, help="seconds that are judged at once")
    parser.add_argument("--hop", type=float, default=0.5, help="seconds from one window to the next")
    parser.add_argument("--encoder", help="where the encoder is, if not where it was in training")
    options = parser.parse_args()
    try:
        live(options.model, sys.stdin.buffer, options.window, options.hop, options.encoder)
    except KeyboardInterrupt:
        print()
    except SereinError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
