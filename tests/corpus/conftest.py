import csv
import itertools
from collections import defaultdict
from pathlib import Path

import pytest

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
TURNS_BY_SESSION = {"1": 1819, "2": 1811, "3": 2136, "4": 2103, "5": 2170}
OUTSIDE_FOUR_CLASSES = ["fru"] * 1849 + ["xxx"] * 2507 + ["sur"] * 107 + ["fea"] * 40 + ["dis"] * 2 + ["oth"] * 3
RATERS = (
    "C-E2:\tNeutral;\t()\n"
    "C-E3:\tAnger; Frustration;\t(raises voice; then stops)\n"
    "C-E4:\tNeutral;\t()\n"
    "C-F1:\tSadness;\t()\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\n"
    "A-E4:\tval 2; act 3; dom  3;\t(mildly aggravated but staying polite, attitude)\n"
    "A-F1:\tval 3; act 2; dom  1;\t()\n"
)


@pytest.fixture(scope="session")
def iemocap_tree(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations of IEMOCAP in the released layout: all 10,039 turns, without audio.

    The 5,531 turns of the four classes are the real ones; the others have the right numbers by session and by
    label, in dialogues of our choice.
    """
    release = tmp_path_factory.mktemp("iemocap") / "IEMOCAP_full_release"
    for dialogue, turns in turns_by_dialogue(shared / "data" / "iemocap_5531.csv").items():
        folder = release / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{dialogue}.txt").write_bytes(annotation(turns).encode("latin-1"))
        (folder / f"._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07\xff[1.0 - 2.0]\n[junk")
    for decoy in ("Attribute", "Categorical", "Self-evaluation"):
        folder = release / "Session1" / "dialog" / "EmoEvaluation" / decoy
        folder.mkdir()
        (folder / "Ses01F_impro01.txt").write_text(annotation([("Ses01F_impro01_F777", "ang", 1.0)]))
        (folder / "Ses01F_impro01_e2.txt").write_text("[not a turn\n")
    return release


def turns_by_dialogue(index: Path) -> dict[str, list[tuple[str, str, float]]]:
    turns: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    with index.open(newline="") as file:
        for row in csv.DictReader(file):
            turns[row["utterance"].rsplit("_", 1)[0]].append((row["utterance"], row["emotion"], float(row["seconds"])))
    labels = iter(OUTSIDE_FOUR_CLASSES)
    for session, published in TURNS_BY_SESSION.items():
        dialogues = [dialogue for dialogue in turns if dialogue[4] == session]
        missing = published - sum(len(turns[dialogue]) for dialogue in dialogues)
        for number, (dialogue, label) in enumerate(
            zip(itertools.cycle(dialogues), itertools.islice(labels, missing), strict=False)
        ):
            name = f"{dialogue}_{'FM'[number % 2]}X{number // len(dialogues):02}"
            turns[dialogue].append((name, label, 1.5))
    return turns


def annotation(turns: list[tuple[str, str, float]]) -> str:
    text, start = HEADER, 6.2901
    for name, label, seconds in turns:
        text += f"[{start:.4f} - {start + seconds:.4f}]\t{name}\t{label}\t[2.5000, 3.0000, 1.6667]\n{RATERS}\n"
        start += seconds
    return text + "% caf\xe9\n"
