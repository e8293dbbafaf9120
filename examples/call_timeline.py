"""The emotions of a call over time: a table, and a picture. Needs matplotlib (``pip install 'serein[report]'``).

Usage:  python examples/call_timeline.py MODEL call.flac -o call
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from serein import EmotionRecognizer
from serein.errors import SereinError, UsageError


def call_timeline(model: str, call: Path, output: Path, encoder: str | None = None) -> None:
    """Write OUTPUT.csv (a row a window), OUTPUT.txt (labels for Audacity) and OUTPUT.png."""
    if not output.name:
        raise UsageError(f"-o {output}: names a folder; give the name that the three files are to have")
    output.parent.mkdir(parents=True, exist_ok=True)
    recognizer = EmotionRecognizer.from_pretrained(model, encoder=encoder)
    timeline = recognizer.timeline(call, window=4.0, hop=1.0)
    table, labels, picture = (output.with_name(output.name + suffix) for suffix in (".csv", ".txt", ".png"))
    table.write_text(timeline.to_csv(), encoding="utf-8")
    labels.write_text(timeline.to_audacity(), encoding="utf-8")

    middles = [(window.start + window.end) / 2 for window in timeline.windows]
    scores = [list(column) for column in zip(*(window.scores for window in timeline.windows), strict=True)]
    figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
    axes.stackplot(middles, scores, labels=timeline.labels)
    for segment in timeline.segments():
        if segment.label == "silence":
            axes.axvspan(segment.start, segment.end, facecolor="white", alpha=0.7, hatch="//", edgecolor="grey")
    axes.set(xlabel="seconds", ylabel="score", xlim=(0, timeline.seconds), ylim=(0, 1))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(picture, dpi=150)
    plt.close(figure)
    print(f"{len(timeline.windows)} windows of {timeline.seconds:.1f} seconds in {table}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder from `serein train`, or a Hub id")
    parser.add_argument("call", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("call"), help="without a suffix")
    parser.add_argument("--encoder", help="where the encoder is, if not where it was in training")
    options = parser.parse_args()
    try:
        call_timeline(options.model, options.call, options.output, options.encoder)
    except SereinError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
