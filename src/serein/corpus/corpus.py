"""One record an utterance, and the table that holds them."""

import csv
import filecmp
import io
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from serein.errors import CorpusError
from serein.files import is_utf8, write_atomically

REQUIRED_COLUMNS = ("id", "path", "talker", "emotion")
OPTIONAL_COLUMNS = ("session", "text", "seconds", "audio_hash", "release")
_PRINTED = ("id", "talker", "emotion", "session")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one talker.

    Attributes:
        id: unique in its corpus.
        path: the audio file; absolute, or relative to the working directory.
        talker: who speaks; two utterances of one person carry the same name.
        emotion: the label, or "" for unlabelled speech.
        session: the recording session, or "" where the corpus has none.
        text: which sentence is spoken (an id or the words), or "" where the corpus does not say.
        seconds: length; None until somebody has measured it.
        audio_hash: SHA-256 of the decoded samples, in hexadecimal; "" until somebody has measured it.
        extra: every further column of the table, kept as text.
        release: the corpus that others know it by, as a key of :data:`serein.corpus.about.KNOWN`; "" of one's own.
    """

    id: str
    path: Path
    talker: str
    emotion: str = ""
    session: str = ""
    text: str = ""
    seconds: float | None = None
    audio_hash: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    release: str = ""


@dataclass(frozen=True)
class Corpus:
    """A named, ordered set of utterances with unique ids.

    Raises:
        CorpusError: an id stands twice, an id or a talker is empty, or a name cannot be printed or has space at
            its edge.

    Example:
        >>> corpus = Corpus("two", (Utterance("a", Path("a.wav"), talker="F1", emotion="sad"),
        ...                         Utterance("b", Path("b.wav"), talker="M1", emotion="happy")))
        >>> corpus.talkers, corpus.labels
        (('F1', 'M1'), ('happy', 'sad'))
        >>> len(corpus.select(lambda utterance: utterance.talker == "F1"))
        1
    """

    name: str
    utterances: tuple[Utterance, ...]

    def __post_init__(self) -> None:
        if not is_utf8(self.name):
            raise CorpusError(f"corpus {self.name!r}: its name is not UTF-8; rename the table")
        seen: set[str] = set()
        for utterance in self.utterances:
            if not utterance.id or not utterance.talker:
                raise CorpusError(
                    f"corpus {self.name}: an utterance has no {'talker' if utterance.id else 'id'}: {utterance}"
                )
            for name in _PRINTED:
                if not getattr(utterance, name).isprintable():
                    raise CorpusError(f"corpus {self.name}: {name} {getattr(utterance, name)!r} cannot be printed")
                if (value := getattr(utterance, name)) != value.strip():
                    raise CorpusError(f"corpus {self.name}: {name} {value!r} has space at its edge; take it away")
            if utterance.id in seen:
                raise CorpusError(f"corpus {self.name}: id {utterance.id!r} stands twice; ids must be unique")
            seen.add(utterance.id)

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    @property
    def talkers(self) -> tuple[str, ...]:
        """All talkers, sorted."""
        return tuple(sorted({utterance.talker for utterance in self.utterances}))

    @property
    def releases(self) -> tuple[str, ...]:
        """All releases that utterances are of, sorted, "" among them where some are of none."""
        return tuple(sorted({utterance.release for utterance in self.utterances}))

    @property
    def labels(self) -> tuple[str, ...]:
        """All emotions that occur, sorted; unlabelled utterances do not count."""
        return tuple(sorted({utterance.emotion for utterance in self.utterances} - {""}))

    def by_id(self) -> dict[str, Utterance]:
        """Utterances by their ids."""
        return {utterance.id: utterance for utterance in self.utterances}

    def select(self, keep: Callable[[Utterance], bool]) -> "Corpus":
        """The utterances for which ``keep`` is true, in the same order."""
        return replace(self, utterances=tuple(filter(keep, self.utterances)))

    def relabel(self, label_map: Mapping[str, str]) -> "Corpus":
        """Rename emotions; an utterance whose emotion the map does not name is left out.

        Example:
            >>> excited, frustrated = (Utterance(e, Path(f"{e}.wav"), "F1", e) for e in ("exc", "fru"))
            >>> corpus = Corpus("c", (excited, frustrated))
            >>> [(u.id, u.emotion) for u in corpus.relabel({"exc": "happy", "hap": "happy"})]
            [('exc', 'happy')]
        """
        kept = (u for u in self.utterances if u.emotion in label_map)
        return replace(self, utterances=tuple(replace(u, emotion=label_map[u.emotion]) for u in kept))

    @classmethod
    def from_csv(cls, table: str | Path) -> "Corpus":
        """Read a table: a header, then one row an utterance.

        Columns: ``id``, ``path`` (relative to the table's folder, or absolute), ``talker``, ``emotion`` (may be
        empty), and, if you have them, ``session``, ``text``, ``seconds``, ``audio_hash``, ``release``. Others are kept.
        Letters that Unicode writes in two ways, such as é, are brought into one (NFC), or one talker could be two.

        Raises:
            CorpusError: naming every fault of the table with its row (row 1 is the header).
        """
        table = Path(table)
        try:
            with table.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.reader(file, strict=True))
        except OSError as error:
            raise CorpusError(
                f"{table}: cannot be read ({error.strerror}); `serein corpus` makes such a table"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise CorpusError(f"{table}: is not a CSV table in UTF-8 ({error})") from error
        if not rows:
            raise CorpusError(f"{table}: is empty; the first row must name the columns {', '.join(REQUIRED_COLUMNS)}")
        header = [name.strip() for name in rows[0]]
        missing = [name for name in REQUIRED_COLUMNS if name not in header]
        twice = sorted({name for name in header if header.count(name) > 1})
        if missing or twice:
            faults = [f"no column {name!r}" for name in missing] + [f"column {name!r} stands twice" for name in twice]
            faults.append(f"the header is {header}")
            marks = [mark for mark in ";\t" if mark in "".join(rows[0])]
            faults += [f"it looks separated by {mark!r}: save it with commas" for mark in marks]
            raise CorpusError(f"{table}, row 1: {'; '.join(faults)}")

        utterances: list[Utterance] = []
        faults = []
        first_row: dict[str, int] = {}
        for number, row in enumerate(rows[1:], start=2):
            if not row:
                continue
            if len(row) != len(header):
                faults.append(f"row {number}: {len(row)} cells where the header has {len(header)}")
                continue
            cells = {name: _cleaned(name, cell) for name, cell in zip(header, row, strict=True)}
            found = _row_faults(cells)
            if cells["id"] in first_row and cells["id"]:
                found.append(f"id {cells['id']!r} stands already in row {first_row[cells['id']]}")
            first_row.setdefault(cells["id"], number)
            faults += [f"row {number}: {fault}" for fault in found]
            if not found:
                utterances.append(_utterance(cells, table.parent))
        if faults:
            shown = "\n  ".join(faults[:20]) + (f"\n  and {len(faults) - 20} more" if len(faults) > 20 else "")
            raise CorpusError(f"{table}: {len(faults)} fault(s):\n  {shown}")
        if not utterances:
            raise CorpusError(f"{table}: has a header and no utterances")
        return cls(table.stem, tuple(utterances))

    def to_csv(self, table: str | Path) -> None:
        """Write the table, with paths relative to its folder; columns that hold nothing are left out.

        Raises:
            CorpusError: a path is not written in UTF-8, as the table is, or ends in a space, which is not read.
        """
        folder = Path(table).resolve().parent  # of a link, where what it points at is written
        # folders as they really lie: "link/.." is not where the link stands
        real = cache(Path.resolve)
        extras = list(dict.fromkeys(name for utterance in self.utterances for name in utterance.extra))
        filled = [name for name in OPTIONAL_COLUMNS if any(getattr(u, name) not in ("", None) for u in self.utterances)]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow([*REQUIRED_COLUMNS, *filled, *extras])
        for utterance in self.utterances:
            path = Path(os.path.relpath(real(utterance.path.parent) / utterance.path.name, folder)).as_posix()
            if not is_utf8(path):
                raise CorpusError(f"{path!r}: is not UTF-8, as {table} is; rename the file or folder")
            if path[-1].isspace():
                raise CorpusError(f"{path!r}: ends in a space, which no table keeps; rename the file")
            writer.writerow(
                [
                    utterance.id,
                    f"./{path}" if path[0].isspace() else path,  # spaces around a cell are not read
                    utterance.talker,
                    utterance.emotion,
                    *(_cell(getattr(utterance, name)) for name in filled),
                    *(utterance.extra.get(name, "") for name in extras),
                ]
            )
        write_atomically(Path(table), text.getvalue().encode())


def recording_names(utterance: Utterance) -> set[str]:
    """What a recording is known by: where it is, and its hash where somebody has measured it.

    Example:
        >>> len(recording_names(Utterance("a", Path("a.wav"), talker="F1")))
        1
    """
    return {str(utterance.path.resolve()), utterance.audio_hash} - {""}


def same_recording(one: Utterance, other: Utterance) -> bool:
    """Whether two utterances are of one recording: by their hashes, or where a table has none, by place or bytes."""
    if one.audio_hash and other.audio_hash:
        return one.audio_hash == other.audio_hash
    if one.path.resolve() == other.path.resolve():
        return True
    try:
        return filecmp.cmp(one.path, other.path, shallow=False)
    except OSError:
        return False


def _row_faults(cells: Mapping[str, str]) -> list[str]:
    faults = [f"{name} is empty" for name in ("id", "path", "talker") if not cells[name]]
    faults += [
        f"{name} {cells[name]!r} cannot be printed" for name in _PRINTED if not cells.get(name, "").isprintable()
    ]
    seconds = cells.get("seconds", "")
    if seconds:
        try:
            if not 0 <= float(seconds) < float("inf"):
                faults.append(f"seconds is {seconds!r}, not a length")
        except ValueError:
            faults.append(f"seconds is {seconds!r}, not a number")
    return faults


def _utterance(cells: dict[str, str], folder: Path) -> Utterance:
    known = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}
    seconds = cells.get("seconds", "")
    return Utterance(
        id=cells["id"],
        path=folder / cells["path"],
        talker=cells["talker"],
        emotion=cells["emotion"],
        session=cells.get("session", ""),
        text=cells.get("text", ""),
        seconds=float(seconds) if seconds else None,
        audio_hash=cells.get("audio_hash", ""),
        release=cells.get("release", ""),
        extra={name: value for name, value in cells.items() if name not in known},
    )


def _cleaned(column: str, cell: str) -> str:
    # a file's name is what the disk says, an id what folds and frames are filed under
    return cell.strip() if column in ("id", "path") else unicodedata.normalize("NFC", cell.strip())


def _cell(value: object) -> str:
    return "" if value is None else str(value)
