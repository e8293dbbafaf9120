"""From a CSV of one's own to a model that serves: check, extract, judge, train, predict.

Usage:  python examples/own_corpus.py mine.csv --encoder facebook/hubert-base-ls960 --layers 4,5,6 -o mine/
        serein serve mine/model

The table has a row an utterance with the columns id, path, talker and emotion: see docs/corpora.md.
"""

import argparse
import sys
from pathlib import Path

from serein import Corpus, EmotionRecognizer, Recipe, cross_validate, extract, load_encoder, make_protocol, terminal
from serein.errors import SereinError
from serein.evaluate.report import write_report
from serein.frames.scan import scan_audio
from serein.train.ship import train_model


def own_corpus(table: Path, output: Path, encoder: str, layers: list[int], pool: int, recipe: Recipe) -> Path:
    """Leave OUTPUT/frames, OUTPUT/run with its report, and OUTPUT/model; return the model's folder."""
    with terminal.progress() as report:
        scan = scan_audio(Corpus.from_csv(table), report=report)
    for file in scan.broken:
        print(f"left out: {file.id}: {file.reason}")
    with terminal.progress() as report:
        front = load_encoder(encoder, layers=layers)
        store = extract(scan.corpus, front, output / "frames", pool=pool, report=report)
        corpus = store.corpus()
        labelled = corpus.select(lambda utterance: utterance.emotion != "")
        protocol = make_protocol(f"talkers-{min(5, len(labelled.talkers))}", corpus)
        run = cross_validate(store, corpus, protocol, output / "run", recipe, report=report)
        facts = train_model(store, corpus, output / "model", recipe, report=report)

    print(f"The model: {output / 'model'}, {facts['epochs']} epochs")
    first = corpus.utterances[0]
    print(first.path, EmotionRecognizer.from_pretrained(output / "model")(first.path))
    terminal.print_scores("What to expect of new talkers", [run])
    print(f"The report: {write_report(run).html}")
    return output / "model"


def layer_numbers(text: str) -> list[int]:
    """What ``--layers`` says; argparse tells of a ValueError."""
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--encoder", required=True, help="Hub id or folder of a transformers encoder, or logmel")
    parser.add_argument("--layers", type=layer_numbers, default="-1", help="layer numbers with commas between them")
    parser.add_argument("--pool", type=int, default=4, help="frames averaged into one")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "laptop.toml")
    parser.add_argument("-o", "--output", type=Path, default=Path("mine"))
    options = parser.parse_args()
    try:
        own_corpus(
            options.table, options.output, options.encoder, options.layers, options.pool,
            Recipe.read(options.recipe, []),
        )  # fmt: skip
    except SereinError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
