"""EmoBox's published test folds, read from its folder or from a list of talkers."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any

from serein.corpus.corpus import Utterance
from serein.corpus.protocol import TALKERS_SHARED
from serein.errors import CorpusError
from serein.files import parse_json


def read_emobox_folds(source: str | Path, pool: Sequence[Utterance]) -> tuple[dict[str, list[Utterance]], int]:
    """Which utterances each of EmoBox's folds tests.

    Args:
        source: EmoBox's folder of one corpus (``data/ravdess``) with ``fold_1/ravdess_test_fold_1.jsonl``
            and so on, one JSON object a line; or a JSON file ``{"test_actors": {"fold_1": [1, 11]}}`` that
            names whole talkers (1 and 01 are the same).
        pool: the utterances to choose from.

    Returns:
        The utterances by the fold's name, and how many that EmoBox tests are not in the pool.

    Raises:
        CorpusError: the source cannot be read, or names other talkers than the pool has.
    """
    source = Path(source)
    return _from_folder(source, pool) if source.is_dir() else (_from_talkers(source, pool), 0)


def refuse_untested(tests: Mapping[str, Sequence[Utterance]], pool: Sequence[Utterance]) -> None:
    """Refuse utterances that EmoBox leaves out: they would train, and their talkers are tested.

    Where EmoBox itself tests a talker in two folds nothing is refused here: such folds share talkers anyway.

    Raises:
        CorpusError: saying how many there are, and how to leave them out.
    """
    tested = {u.id for test in tests.values() for u in test}
    talkers = Counter(talker for test in tests.values() for talker in {u.talker for u in test})
    untested = [u for u in pool if u.talker in talkers and u.id not in tested]
    if untested and max(talkers.values()) == 1:
        example = f"{untested[0].id!r} ({untested[0].emotion})"
        raise CorpusError(
            f"of talkers whom EmoBox tests the corpus has utterances that it does not test, {len(untested)} in all, as "
            f"{example}: leave out their labels with --map, or their rows of the table; emobox-{TALKERS_SHARED} trains "
            "on them"
        )


def _from_folder(source: Path, pool: Sequence[Utterance]) -> tuple[dict[str, list[Utterance]], int]:
    by_id = {utterance.id: utterance for utterance in pool}
    folders = sorted(source.glob("fold_*"), key=lambda path: (len(path.name), path.name))
    if not folders:
        raise CorpusError(f"{source}: has no folder fold_1; give EmoBox's folder of one corpus, as data/ravdess")
    folds: dict[str, list[Utterance]] = {}
    missing = 0
    for folder in folders:
        rows = _rows(folder)
        found = [by_id[name] for row in rows if (name := _name(row, by_id.keys()))]
        folds[folder.name] = found
        missing += len(rows) - len(found)
    return folds, missing


def _name(row: dict[str, Any], known: Set[str]) -> str | None:
    # EmoBox writes the corpus's name before the file's: ravdess-03-01-01-01-01-01-01.
    key = str(row.get("key", ""))
    names = (key, key.partition("-")[2], PurePosixPath(str(row.get("wav", ""))).stem)
    return next((name for name in names if name in known), None)


def _rows(folder: Path) -> list[dict[str, Any]]:
    # Some folders also hold *_test_fold1.jsonl, an older table with other folds.
    tables = sorted(folder.glob(f"*_test_{folder.name}.jsonl"))
    if len(tables) != 1:
        raise CorpusError(f"{folder}: has {len(tables)} files *_test_{folder.name}.jsonl, where EmoBox has one")
    try:
        rows = [parse_json(line) for line in tables[0].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise CorpusError(f"{tables[0]}: cannot be read as one JSON object a line ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise CorpusError(f"{tables[0]}: has a line that is no JSON object")
    return rows


def _from_talkers(source: Path, pool: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    try:
        tested = parse_json(source.read_text(encoding="utf-8-sig"))["test_actors"]
        folds = {fold: {str(talker).lstrip("0") for talker in talkers} for fold, talkers in tested.items()}
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        form = '{"test_actors": {"fold_1": [1, 11]}}'
        raise CorpusError(f"{source}: does not have the form {form} ({error!r})") from error
    if twice := sorted(t for t, count in Counter(t for each in folds.values() for t in each).items() if count > 1):
        raise CorpusError(f"{source}: several folds test talker {', '.join(twice)}; each talker belongs to one")
    named = {talker for talkers in folds.values() for talker in talkers}
    talkers = {utterance.talker for utterance in pool}
    present = {talker.lstrip("0") for talker in talkers}
    if len(present) < len(talkers):
        raise CorpusError(f"{source} takes 1 and 01 for one talker, and the corpus has two such; rename one of them")
    if named != present:
        raise CorpusError(
            f"{source} and the corpus have different talkers: only the file has {sorted(named - present)}, "
            f"only the corpus has {sorted(present - named)}"
        )
    return {fold: [u for u in pool if u.talker.lstrip("0") in talkers] for fold, talkers in folds.items()}
