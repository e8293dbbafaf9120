"""The named protocols: who trains, who validates and who is tested, made from a corpus by name."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.emobox import read_emobox_folds, refuse_untested
from serein.corpus.protocol import ORACLE, TALKERS_SHARED, Fold, Protocol, check_talkers, fold_name
from serein.errors import CorpusError, UsageError

PROTOCOL_NAMES = (
    "sessions",
    "sessions-random20",
    "sessions-ORACLE-val-is-test",
    "talkers",
    "talkers-K",
    "emobox",
    "emobox-TALKERS-SHARED",
    "official",
    "official-TALKERS-SHARED",
    "random-K-TALKERS-SHARED",
)
"""What ``make_protocol`` knows; K is a number, and ``/improvised`` or ``/scripted`` may follow each."""

_PARTS_OF_SPLIT = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}

_Groups = dict[str, list[Utterance]]
"""Which utterances are tested together, by the fold's name."""


def make_protocol(name: str, corpus: Corpus, *, seed: int = 0, folds_file: str | Path | None = None) -> Protocol:
    """Make one of the named protocols; ``docs/protocols.md`` says when to use which.

    The same corpus gives the same protocol on every machine, whatever the order of its utterances. Unlabelled
    utterances are left out.

    Args:
        name: one of ``PROTOCOL_NAMES``, such as ``sessions`` or ``talkers-5``; followed by ``/improvised`` or
            ``/scripted`` it takes only the utterances whose column ``part`` says so.
        corpus: what is split.
        seed: of the protocols that draw or deal; 0 deals talkers in their sorted order.
        folds_file: for ``emobox``: what ``read_emobox_folds`` reads.

    Raises:
        UsageError: the name is unknown, or the folds file is missing or not wanted.
        CorpusError: the corpus cannot be split so, or a talker would be on two sides and the name hides it.

    Example:
        >>> corpus = Corpus("toy", tuple(Utterance(f"{talker}-{emotion}", Path("a.wav"), talker, emotion)
        ...                              for talker in ("F1", "F2", "M1") for emotion in ("happy", "sad")))
        >>> for fold in make_protocol("talkers", corpus).folds:
        ...     print(fold.name, fold.train, fold.validation, fold.test)
        talker-F1 ('M1-happy', 'M1-sad') ('F2-happy', 'F2-sad') ('F1-happy', 'F1-sad')
        talker-F2 ('F1-happy', 'F1-sad') ('M1-happy', 'M1-sad') ('F2-happy', 'F2-sad')
        talker-M1 ('F2-happy', 'F2-sad') ('F1-happy', 'F1-sad') ('M1-happy', 'M1-sad')
    """
    base, slash, part = name.partition("/")
    if slash and part not in ("improvised", "scripted"):
        raise _unknown(name)
    if (folds_file is not None) != (base.split("-")[0] == "emobox"):
        wanted = "needs EmoBox's folds: give them with --folds-file, see docs/protocols.md"
        fault = wanted if folds_file is None else "reads no folds file"
        raise UsageError(f"protocol {name}: {fault}")
    try:
        pool = _pool(corpus, part)
        folds, description = _split(base, pool, seed, folds_file)
    except CorpusError as error:
        raise CorpusError(f"protocol {name}, corpus {corpus.name}: {error}") from error
    subset = f" Only {part} speech." if part else ""
    tested = sum(len(fold.test) for fold in folds)
    protocol = Protocol(
        name=name,
        description=f"{description}{subset} Over {len(folds)} fold(s), {tested} of {len(pool)} labelled "
        "utterances are tested, each once.",
        corpus=corpus.name,
        labels=tuple(sorted({utterance.emotion for utterance in pool})),
        folds=folds,
        oracle=ORACLE in name,
        shares_talkers=TALKERS_SHARED in name,
    )
    check_talkers(protocol, corpus)
    return protocol


def _split(
    base: str, pool: Sequence[Utterance], seed: int, folds_file: str | Path | None
) -> tuple[tuple[Fold, ...], str]:
    """The folds, and who is tested and who validates, in words."""
    match base.split("-"):
        case ["sessions"]:
            folds = _next_validates(_sessions(pool), pool)
            return folds, "One session is tested, the next validates, the others train."
        case ["sessions", "random20"]:
            return _fifth_validates(_sessions(pool), pool, seed), (
                "One session is tested; of the others a random 20 % of each emotion validates "
                f"(seed {seed}), by talkers who also train."
            )
        case ["sessions", "ORACLE", "val", "is", "test"]:
            return _test_validates(_sessions(pool), pool), (
                "ORACLE: one session is tested and the same session validates, so choices are made on the "
                "utterances that are scored, and the score tends to be too high."
            )
        case ["talkers"]:
            return _one_talker(pool)
        case ["talkers", count] if count.isdecimal():
            order = "sorted order" if seed == 0 else f"an order drawn with seed {seed}"
            return _next_validates(_dealt_talkers(pool, int(count), seed), pool), (
                f"Whole talkers are dealt in {order} to the smallest of {count} groups; one is tested, the "
                "next validates, the others train."
            )
        case ["random", count, "TALKERS", "SHARED"] if count.isdecimal():
            return _next_validates(_dealt_utterances(pool, int(count), seed), pool), (
                f"TALKERS SHARED: utterances are dealt at random (seed {seed}) to {count} groups, emotion by "
                "emotion, with talkers on all sides; one is tested, the next validates, the others train."
            )
        case ["emobox"] if folds_file:
            tests, missing = read_emobox_folds(folds_file, pool)
            folds = _next_validates(tests, pool)
            refuse_untested(tests, pool)
            return folds, (
                f"EmoBox's test folds{_without(missing)}; the next fold's talkers validate, the others train."
            )
        case ["emobox", "TALKERS", "SHARED"] if folds_file:
            tests, missing = read_emobox_folds(folds_file, pool)
            return _fifth_validates(tests, pool, seed), (
                f"TALKERS SHARED: EmoBox's test folds{_without(missing)}, whose talkers also train; a random "
                f"20 % of each emotion in training validates (seed {seed})."
            )
        case ["official"]:
            return _official(pool), "The corpus's own training, validation and test parts."
        case ["official", "TALKERS", "SHARED"]:
            return _official(pool), (
                "TALKERS SHARED: the corpus's own training, validation and test parts, with common talkers."
            )
    raise _unknown(base)


def _without(missing: int) -> str:
    return f" (without {missing} utterances that this corpus lacks)" if missing else ""


def _unknown(name: str) -> UsageError:
    return UsageError(
        f"there is no protocol {name!r}; there are {', '.join(PROTOCOL_NAMES)}, where K is a number; "
        "/improvised or /scripted may follow each"
    )


def _pool(corpus: Corpus, part: str) -> tuple[Utterance, ...]:
    """The labelled utterances of a part, sorted by id, so that the corpus's order decides nothing."""
    labelled = sorted((u for u in corpus if u.emotion), key=lambda u: u.id)
    pool = tuple(u for u in labelled if not part or u.extra.get("part") == part)
    if not pool:
        column = f" and says {part!r} in column 'part'" if part else ""
        raise CorpusError(f"no utterance has an emotion{column}, so there is nothing to split")
    return pool


def _grouped(pool: Sequence[Utterance], key: Callable[[Utterance], str]) -> _Groups:
    groups = defaultdict(list)
    for utterance in pool:
        groups[key(utterance)].append(utterance)
    return {name: groups[name] for name in sorted(groups)}


def draw(seed: int, key: str) -> str:
    """A random number of this seed and key alone.

    To sort by it is to shuffle alike on every machine and for ever, which numpy's generators do not promise.
    """
    return hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()


# Which utterances are tested together.


def _sessions(pool: Sequence[Utterance]) -> _Groups:
    without = [u.id for u in pool if not u.session]
    if without:
        count = f"{len(without)} of {len(pool)} utterances"
        raise CorpusError(f"{count} have no session ({without[0]!r}, ...); use talkers-5 instead")
    return _grouped(pool, lambda u: fold_name("session", u.session))


def _dealt_talkers(pool: Sequence[Utterance], count: int, seed: int) -> _Groups:
    """Deal whole talkers, each to the group with the fewest utterances so far."""
    talkers = _grouped(pool, lambda u: u.talker)
    _check_count(count, len(talkers), "talkers")
    order = list(talkers) if seed == 0 else sorted(talkers, key=lambda talker: draw(seed, talker))
    groups: list[list[Utterance]] = [[] for _ in range(count)]
    dealt = [0] * count

    def place(i: int) -> tuple[int, int]:
        # Equal groups are dealt to and fro: many corpora number women and men in turn, and dealing round and
        # round would make groups of one gender.
        return len(groups[i]), i if dealt[i] % 2 == 0 else -i

    for talker in order:
        smallest = min(range(count), key=place)
        groups[smallest] += talkers[talker]
        dealt[smallest] += 1
    return {f"fold-{i}": group for i, group in enumerate(groups, start=1)}


def _dealt_utterances(pool: Sequence[Utterance], count: int, seed: int) -> _Groups:
    _check_count(count, len(pool), "utterances")
    deck = sorted(pool, key=lambda u: (u.emotion, draw(seed, u.id)))
    return {f"fold-{i + 1}": deck[i::count] for i in range(count)}


def _check_count(groups: int, members: int, of: str) -> None:
    if not 3 <= groups <= members:
        raise CorpusError(
            f"{groups} groups cannot be made of {members} {of}: K must be 3 at least, and not above {members}"
        )


# Who validates.


def _next_validates(tests: _Groups, pool: Sequence[Utterance]) -> tuple[Fold, ...]:
    names = list(tests)
    if len(names) < 3:
        raise CorpusError(
            f"one is tested, the next validates, a third trains, and there is only {', '.join(names)}; take a protocol "
            "that makes three groups, such as talkers-3"
        )
    following = zip(names, names[1:] + names[:1], strict=True)
    return tuple(_fold(name, pool, tests[after], tests[name]) for name, after in following)


def _fifth_validates(tests: _Groups, pool: Sequence[Utterance], seed: int) -> tuple[Fold, ...]:
    folds = []
    for name, test in tests.items():
        tested = {u.id for u in test}
        rest = [u for u in pool if u.id not in tested]
        validation = fifth(rest, name, seed)
        if not validation:
            raise CorpusError(f"{name} leaves {len(rest)} utterances, too few to train on and to draw 20 % from")
        folds.append(_fold(name, pool, validation, test))
    return tuple(folds)


def fifth(utterances: Iterable[Utterance], fold: str, seed: int) -> list[Utterance]:
    """A random 20 % of each emotion, at least one, and none of an emotion that has one utterance."""
    shuffled = sorted(utterances, key=lambda u: draw(seed, f"{fold}/{u.id}"))
    by_emotion = _grouped(shuffled, lambda u: u.emotion).values()
    return [u for same in by_emotion if len(same) > 1 for u in same[: max(1, round(len(same) / 5))]]


def _test_validates(tests: _Groups, pool: Sequence[Utterance]) -> tuple[Fold, ...]:
    return tuple(_fold(name, pool, test, test) for name, test in tests.items())


def _one_talker(pool: Sequence[Utterance]) -> tuple[tuple[Fold, ...], str]:
    """Test one talker; in a corpus of dialogues the partner validates, else the next talker."""
    tests = _grouped(pool, lambda u: u.talker)
    sessions = _grouped(pool, lambda u: u.session)
    casts = [sorted({u.talker for u in session}) for session in sessions.values()]
    paired = "" not in sessions and all(len(cast) == 2 for cast in casts) and 2 * len(casts) == len(tests)
    if not paired:
        named = {fold_name("talker", talker): test for talker, test in tests.items()}
        return _next_validates(named, pool), "One talker is tested, the next validates, the others train."
    partner = {a: b for cast in casts for a, b in (cast, reversed(cast))}
    folds = (_fold(fold_name("talker", t), pool, tests[partner[t]], tests[t]) for t in tests)
    return tuple(folds), "One talker is tested, the partner in the dialogue validates, the others train."


def _official(pool: Sequence[Utterance]) -> tuple[Fold, ...]:
    parts: _Groups = {"train": [], "validation": [], "test": []}
    for utterance in pool:
        split = utterance.extra.get("split", "")
        if split not in _PARTS_OF_SPLIT:
            wanted = ", ".join(_PARTS_OF_SPLIT)
            raise CorpusError(f"column 'split' of {utterance.id!r} says {split!r}; it must say one of {wanted}")
        parts[_PARTS_OF_SPLIT[split]].append(utterance)
    empty = [part for part, utterances in parts.items() if not utterances]
    if empty:
        raise CorpusError(
            f"column 'split' puts no labelled utterance into {' or '.join(empty)}; fill the column, or take another "
            "protocol, such as talkers-5"
        )
    return (_fold("official", pool, parts["validation"], parts["test"]),)


def _fold(name: str, pool: Sequence[Utterance], validation: Sequence[Utterance], test: Sequence[Utterance]) -> Fold:
    """The rest of the pool trains."""
    held_out = {u.id for u in (*validation, *test)}
    train = tuple(u.id for u in pool if u.id not in held_out)
    return Fold(name, train, tuple(sorted(u.id for u in validation)), tuple(sorted(u.id for u in test)))
