"""How a corpus is split: named, hashed folds of utterance ids, and the search for what their parts share."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from serein.corpus.corpus import Corpus, Utterance, recording_names
from serein.errors import CorpusError
from serein.files import parse_json, write_atomically

PARTS = ("train", "validation", "test")
ORACLE = "ORACLE"
TALKERS_SHARED = "TALKERS-SHARED"

_PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))
_SHAREABLE: dict[Literal["talker", "audio", "text"], Callable[[Utterance], set[str]]] = {
    "talker": lambda utterance: {utterance.talker},
    "audio": recording_names,
    "text": lambda utterance: {utterance.text} - {""},
}
_SHOWN = {"talker": 24, "audio": 60, "text": 24}  # characters of each value in a sentence
_LONGEST = 100
_FOLDER_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._~%-]{{0,{_LONGEST - 1}}}")


@dataclass(frozen=True)
class Fold:
    """One round of training and testing, as utterance ids.

    Attributes:
        name: unique in its protocol, and fit to name a folder.
        train: what the parameters are fitted on.
        validation: what every choice is made on (epoch, layer, settings).
        test: what is read once, after the last choice.
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def part(self, name: str) -> tuple[str, ...]:
        """The utterances of ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True)
class Protocol:
    """Named folds of one corpus; a score is quoted with its protocol's name and hash.

    Attributes:
        name: how it is asked for. It holds the word ``ORACLE`` or ``TALKERS-SHARED`` exactly when the flag
            below is set, so that no table can show such a score without saying so.
        description: one or two sentences for the reader of a report.
        corpus: the corpus's name.
        labels: the classes, in the order of every table and matrix.
        folds: in the order of every report.
        oracle: the validation utterances are the test utterances.
        shares_talkers: talkers of the test part may also train or validate.

    Raises:
        CorpusError: an utterance is in two parts of a fold, or is tested twice; a fold trains or tests on
            nothing; a fold's name is taken or cannot name a folder; the name hides a flag.

    Example:
        >>> fold = Fold("only", train=("a", "b"), validation=("c",), test=("d",))
        >>> Protocol("mine", "One fold.", "toy", ("happy", "sad"), (fold,)).hash
        'ad1cdb91b01f'
    """

    name: str
    description: str
    corpus: str
    labels: tuple[str, ...]
    folds: tuple[Fold, ...]
    oracle: bool = False
    shares_talkers: bool = False

    def __post_init__(self) -> None:
        where = f"protocol {self.name}"
        for word, flag in ((ORACLE, self.oracle), (TALKERS_SHARED, self.shares_talkers)):
            if (word in self.name) != flag:
                raise CorpusError(f"{where}: the name must hold the word {word} exactly when the folds are so")
        if not self.folds:
            raise CorpusError(f"{where}: has no folds")
        for fold in self.folds:
            _check_fold(fold, self.oracle, f"{where}, fold {fold.name}")
        # Without regard to case: A and a are one folder on many disks.
        if twice := _repeated(fold.name.casefold() for fold in self.folds):
            raise CorpusError(f"{where}: two folds are named {twice!r}; their folders would be one")
        if twice := _repeated(utterance for fold in self.folds for utterance in fold.test):
            raise CorpusError(f"{where}: utterance {twice!r} is tested more than once, so it would count twice")

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits over name, labels and folds, whatever the order of ids in a part.

        The description does not count, so that better words do not make old results strangers.
        """
        content = {
            "name": self.name,
            "labels": self.labels,
            "folds": [{"name": fold.name, **{part: sorted(fold.part(part)) for part in PARTS}} for fold in self.folds],
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def save(self, path: str | Path) -> None:
        """Write the protocol and its hash as JSON."""
        write_atomically(Path(path), (json.dumps({"hash": self.hash, **asdict(self)}, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> "Protocol":
        """Read what ``save`` wrote; further keys are passed over.

        Raises:
            CorpusError: the file cannot be read, is no protocol, or was changed after it was saved.
        """
        path = Path(path)
        try:
            content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
            protocol = cls(
                name=content["name"],
                description=content["description"],
                corpus=content["corpus"],
                labels=tuple(content["labels"]),
                folds=tuple(Fold(fold["name"], *(tuple(fold[part]) for part in PARTS)) for fold in content["folds"]),
                oracle=content["oracle"],
                shares_talkers=content["shares_talkers"],
            )
            stated, found = content["hash"], protocol.hash
        except OSError as error:
            raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{path}: is not a protocol that serein saved ({error!r}); make it anew") from error
        except CorpusError as error:
            raise CorpusError(f"{path}: {error}") from error
        if found != stated:
            raise CorpusError(f"{path}: says hash {stated} and has {found}, so it was changed; make it anew")
        return protocol


@dataclass(frozen=True)
class Leak:
    """Something that two parts of a fold share; as text, a sentence.

    Attributes:
        kind: what is shared: a talker, a recording (by its place, and its hash where that is known) or a text.
        fold: the fold's name.
        between: the two parts.
        values: the talkers or texts, or of each recording an utterance of either part, "ID = ID"; sorted.
    """

    kind: Literal["talker", "audio", "text"]
    fold: str
    between: tuple[str, str]
    values: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.values)
        noun = {"talker": "talker", "audio": "recording", "text": "text"}[self.kind]
        subject = f"{count} {noun} is" if count == 1 else f"{count} {noun}s are"
        milder = "" if "test" in self.between else " (milder: test stays apart)"
        longest = _SHOWN[self.kind]
        shown = ", ".join(v if len(v) <= longest else f"{v[: longest - 1]}…" for v in self.values[:4])
        more = f" and {count - 4} more" if count > 4 else ""
        return f"fold {self.fold}: {subject} in both {' and '.join(self.between)}{milder}: {shown}{more}"


def find_leaks(protocol: Protocol, corpus: Corpus) -> list[Leak]:
    """Everything that two parts of a fold share: talkers, identical recordings, texts.

    A shared text is normal in acted corpora, where all say the same sentences; a recording that is in
    training and in test never is. Copies of a recording are found by their hashes only, which ``serein corpus`` writes
    into its table. Of an oracle, whose validation is its test, what train and test share is listed, and once.

    Raises:
        CorpusError: the protocol names an utterance that the corpus does not have.
    """
    known = {kind: {u.id: names(u) for u in corpus} for kind, names in _SHAREABLE.items()}
    leaks = []
    for fold in protocol.folds:
        missing = sorted({id_ for part in PARTS for id_ in fold.part(part)} - known["talker"].keys())
        if missing:
            raise CorpusError(
                f"protocol {protocol.name}, fold {fold.name}: {len(missing)} utterances are not in corpus "
                f"{corpus.name} ({missing[0]!r}, ...); was it made for another table?"
            )
        for first, second in _PAIRS:
            if protocol.oracle and "validation" in (first, second):
                continue
            for kind, of in known.items():
                one, other = ({name: id_ for id_ in fold.part(part) for name in of[id_]} for part in (first, second))
                if shared := one.keys() & other.keys():
                    names = {f"{one[name]} = {other[name]}" for name in shared} if kind == "audio" else shared
                    leaks.append(Leak(kind, fold.name, (first, second), tuple(sorted(names))))
    return leaks


def check_talkers(protocol: Protocol, corpus: Corpus) -> None:
    """Refuse a protocol that tests talkers whom it also trains or validates on, unless its name says so.

    Raises:
        CorpusError: naming the talkers; or the protocol does not fit the corpus.
    """
    leaks = [leak for leak in find_leaks(protocol, corpus) if leak.kind == "talker" and "test" in leak.between]
    if leaks and not protocol.shares_talkers:
        raise CorpusError(
            f"protocol {protocol.name}: {leaks[0]}; such folds measure how well voices are known, "
            f"and are made only under a name with {TALKERS_SHARED}"
        )


def check_folds(protocol: Protocol, corpus: Corpus) -> None:
    """Refuse folds on which nothing can be chosen or judged.

    Raises:
        CorpusError: nobody validates in a fold, an utterance has none of the protocol's labels, or see
            `check_talkers`.
    """
    check_talkers(protocol, corpus)
    emotions = {utterance.id: utterance.emotion for utterance in corpus}
    for fold in protocol.folds:
        strange = [
            name for name in (*fold.train, *fold.validation, *fold.test) if emotions[name] not in protocol.labels
        ]
        if strange:
            raise CorpusError(
                f"protocol {protocol.name}, fold {fold.name}: {strange[0]} is {emotions[strange[0]]!r} in corpus "
                f"{corpus.name}, and the protocol has {', '.join(protocol.labels)}: was it made with another --map?"
            )
        if not fold.validation:
            raise CorpusError(f"protocol {protocol.name}, fold {fold.name}: nobody validates, so nothing can be chosen")


def fold_name(kind: str, name: str) -> str:
    """A fold's name, fit to name a folder, from that of a talker or session; a name that gets too long as its hash.

    Example:
        >>> fold_name("talker", "Zoë"), fold_name("talker", "Александра Смирнова")
        ('talker-Zo%C3%AB', 'talker-cdd068377ede')
    """
    quoted = f"{kind}-{quote(name, safe='')}"
    return quoted if len(quoted) <= _LONGEST else f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _check_fold(fold: Fold, oracle: bool, where: str) -> None:
    if not _FOLDER_NAME.fullmatch(fold.name):
        raise CorpusError(f"{where}: the name cannot name a folder; use up to {_LONGEST} letters, digits and . _ ~ % -")
    if not fold.train or not fold.test:
        raise CorpusError(f"{where}: {'test' if fold.train else 'train'} is empty")
    for part in PARTS:
        if twice := _repeated(fold.part(part)):
            raise CorpusError(f"{where}: utterance {twice!r} stands twice in {part}")
    if oracle and set(fold.validation) != set(fold.test):
        raise CorpusError(f"{where}: an oracle's validation is its test, and here the two differ")
    for first, second in _PAIRS:
        both = set(fold.part(first)) & set(fold.part(second))
        if both and not (oracle and (first, second) == ("validation", "test")):
            raise CorpusError(f"{where}: utterance {min(both)!r} is in both {first} and {second}")


def _repeated(values: Iterable[str]) -> str | None:
    """The first value that stands twice, if one does."""
    return next((value for value, times in Counter(values).items() if times > 1), None)
