"""What each departure from an honest split is worth: protocols that test the same utterances, and leak."""

from collections.abc import Mapping
from dataclasses import replace

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.protocol import ORACLE, TALKERS_SHARED, Fold, Protocol, check_talkers, find_leaks
from serein.corpus.splits import draw, fifth
from serein.errors import CorpusError

HONEST = "honest"


def inflations(protocol: Protocol, corpus: Corpus, seed: int = 0) -> dict[str, Protocol]:
    """The protocol and what common short cuts make of it; ``docs/protocols.md`` has them in a table.

    All test the same utterances, each once. In all but the last the folds test what they test in the protocol:

    - ``honest``: the protocol.
    - ``random20``: a random 20 % of each emotion of training and validation validates, so talkers do both.
    - ``ORACLE-same-train``: choices on the test utterances, and the same training part.
    - ``ORACLE-val-is-test``: choices on the test utterances, and the validation part trains too.
    - ``random-TALKERS-SHARED``: as many folds, dealt at random, with talkers on all sides. Left out where there
      are fewer than three folds: one is tested, the next validates, a third trains.

    Args:
        protocol: folds whose training, validation and test talkers are three groups.
        corpus: for emotions and talkers.
        seed: of what is drawn.

    Raises:
        CorpusError: the protocol is not honest itself, or is of another corpus.
    """
    _check_honest(protocol, corpus)
    known = corpus.by_id()
    made = {
        "random20": (
            [_fifth_validates(fold, known, seed) for fold in protocol.folds],
            "a random 20 % of each emotion of training and validation validates "
            f"(seed {seed}), by talkers who also train",
        ),
        f"{ORACLE}-same-train": (
            [replace(fold, validation=fold.test) for fold in protocol.folds],
            f"{ORACLE}: choices are made on the test utterances; the same utterances train",
        ),
        f"{ORACLE}-val-is-test": (
            [replace(fold, train=_joined(fold), validation=fold.test) for fold in protocol.folds],
            f"{ORACLE}: choices are made on the test utterances; training and validation part train",
        ),
    }
    if len(protocol.folds) > 2:
        made[f"random-{TALKERS_SHARED}"] = (
            _random_folds(protocol, known, seed),
            f"TALKERS SHARED: the test utterances are dealt to the folds at random (seed {seed}), emotion by emotion; "
            "the next fold validates, the others train",
        )
    return {HONEST: protocol} | {
        name: replace(
            protocol,
            name=f"{protocol.name}-{name}",
            description=f"Protocol {protocol.name} ({protocol.hash}), changed: {change}.",
            folds=tuple(folds),
            oracle=ORACLE in name,
            shares_talkers=TALKERS_SHARED in name,
        )
        for name, (folds, change) in made.items()
    }


def _check_honest(protocol: Protocol, corpus: Corpus) -> None:
    check_talkers(protocol, corpus)
    mixed = [leak for leak in find_leaks(protocol, corpus) if leak.kind == "talker"]
    if protocol.oracle or protocol.shares_talkers or mixed:
        why = str(mixed[0]) if mixed else "so says its name"
        raise CorpusError(
            f"protocol {protocol.name} is not honest: {why}; what that is worth is measured from a protocol that keeps "
            "the talkers of all parts apart, such as sessions or talkers-5"
        )


def _joined(fold: Fold) -> tuple[str, ...]:
    return tuple(sorted((*fold.train, *fold.validation)))


def _fifth_validates(fold: Fold, known: Mapping[str, Utterance], seed: int) -> Fold:
    drawn = {utterance.id for utterance in fifth([known[name] for name in _joined(fold)], fold.name, seed)}
    train = tuple(name for name in _joined(fold) if name not in drawn)
    return replace(fold, train=train, validation=tuple(sorted(drawn)))


def _random_folds(protocol: Protocol, known: Mapping[str, Utterance], seed: int) -> list[Fold]:
    """Utterances that the protocol names and never tests go on training in every fold."""
    tested = {name for fold in protocol.folds for name in fold.test}
    never = {name for fold in protocol.folds for name in _joined(fold)} - tested
    count = len(protocol.folds)
    deck = sorted(tested, key=lambda name: (known[name].emotion, draw(seed, name)))
    groups = [deck[number::count] for number in range(count)]
    folds = []
    for number, test in enumerate(groups):
        validation = groups[(number + 1) % count]
        train = (tested | never) - {*test, *validation}
        parts = (tuple(sorted(part)) for part in (train, validation, test))
        folds.append(Fold(f"fold-{number + 1}", *parts))
    return folds
