"""The whole main job on a corpus that is made on the spot: nothing to download, a few minutes on two cores."""

from collections.abc import Callable
from pathlib import Path

from serein.corpus.splits import make_protocol
from serein.corpus.synthetic import make_corpus
from serein.evaluate.report import write_report
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.crossval import cross_validate

# recipes/demo.toml says the same; a test holds the two together, so that the demo also runs from an installed wheel.
RECIPE = """\
[model]
width = 64
heads = 4
dropout = 0.1

[adapt]
epochs = 8
batch_size = 32
learning_rate = 5e-4
warmup = 0.1
attributes = 128
ema_decay = 0.99

[finetune]
epochs = 14
batch_size = 32
learning_rate = 1e-3
head_learning_rate = 5e-3
warmup = 0.1
weight_decay = 0.05
frame_masking = 0.2
head_dropout = 0.2
label_smoothing = 0.1
"""
PROTOCOL = "sessions"
POOL = 4
SYSTEMS = (("linear", "none"), ("adapter", "none"), ("adapter", "inductive"))


def demo(
    folder: str | Path,
    *,
    utterances_per_talker: int = 64,
    seed: int = 0,
    say: Callable[[str], None] = print,
    report: Report = quiet,
) -> tuple[Path, list[Path]]:
    """Make a corpus, extract frames, cross-validate three systems, write the report.

    Args:
        folder: everything goes there; calling again continues.
        utterances_per_talker: of each of the ten voices.
        seed: of the corpus and of training.
        say: is told, before each step, what it does and which command does it on another corpus.
        report: told of progress.

    Returns:
        the report's page, and the three run folders (linear probe, fresh adapter, adapter trained without labels).
    """
    folder = Path(folder)
    say(
        f"1/4 A corpus: ten synthetic voices of eSpeak NG act four emotions, in {folder / 'corpus'}.\n"
        "    These voices are a machine's: the scores show that the machinery works, and say nothing of people.\n"
        "    Yours: serein corpus ravdess FOLDER -o corpus.csv   (or write the table by hand)"
    )
    corpus = make_corpus(folder / "corpus", utterances_per_talker=utterances_per_talker, seed=seed, report=report)
    say(
        f"2/4 Frames: 80 log-mel energies, {50 / POOL:g} a second, in {folder / 'frames'}.\n"
        "    Yours: serein extract corpus.csv --encoder facebook/hubert-large-ls960-ft --layers 12 -o frames/"
    )
    store = extract(corpus, load_encoder("logmel"), folder / "frames", pool=POOL, report=report)
    protocol = make_protocol(PROTOCOL, corpus)
    say(
        f"3/4 Cross-validation, {len(protocol.folds)} folds: one session is tested, the next validates, no talker\n"
        "    is on both sides. A linear probe, the adapter fresh, the adapter first trained without labels.\n"
        f"    Yours: serein crossval frames/ --protocol {PROTOCOL} --recipe recipes/laptop.toml -o runs/mine"
    )
    runs = []
    for system, data in SYSTEMS:
        recipe = Recipe.from_toml(RECIPE, [f"adapt.data={data}"])
        name = system if system == "linear" else f"{system}-{data}"
        runs.append(
            cross_validate(
                store,
                corpus,
                protocol,
                folder / "runs" / name,
                recipe,
                system=system,
                seeds=(seed,),
                command="serein demo",
                report=report,
            )
        )
    say("4/4 The report.\n    Yours: serein report runs/mine")
    *others, trained = runs
    return write_report(trained, others).html, runs
