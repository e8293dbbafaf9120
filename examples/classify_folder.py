"""Name the emotion of every recording in a folder; write a table.

Usage:  python examples/classify_folder.py MODEL FOLDER -o emotions.csv
"""

import argparse
import csv
import sys
from pathlib import Path

from serein import EmotionRecognizer
from serein.errors import AudioError, SereinError

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".caf"}


def classify_folder(model: str, folder: Path, output: Path, encoder: str | None = None) -> int:
    """Write one row a recording; return how many could not be read."""
    output.parent.mkdir(parents=True, exist_ok=True)
    recognizer = EmotionRecognizer.from_pretrained(model, encoder=encoder)
    recordings = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    failed = 0
    # A file's name may be no text: it costs no recording its row.
    with output.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(["path", "emotion", *recognizer.labels])
        for path in recordings:
            try:
                scores = recognizer(path)
            except AudioError as error:
                failed += 1
                print(error, file=sys.stderr)
                continue
            by_label = {score["label"]: score["score"] for score in scores}
            emotion = scores[0]["label"] if recognizer.sure(scores) else "unsure"
            numbers = [f"{by_label[label]:.4f}" for label in recognizer.labels]
            table.writerow([path.relative_to(folder), emotion, *numbers])
    print(f"{len(recordings) - failed} recordings in {output}, {failed} could not be read")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder from `serein train`, or a Hub id")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("emotions.csv"))
    parser.add_argument("--encoder", help="where the encoder is, if not where it was in training")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder}: no folder")
    if options.output.is_dir():
        parser.error(f"{options.output}: is a folder; give a file")
    try:
        sys.exit(3 if classify_folder(options.model, options.folder, options.output, options.encoder) else 0)
    except SereinError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
