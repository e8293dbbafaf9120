"""What the corpora that serein reads are, as a model card says it."""

from typing import NamedTuple


class About(NamedTuple):
    """What a corpus is: as a sentence has it, its language with its ISO 639-1 code, its speech and its terms."""

    title: str
    language: str
    code: str
    speech: str
    terms: str


KNOWN = {
    "emodb": About("EmoDB", "German", "de", "ten acted sentences", "free for research (TU Berlin)"),
    "espeak-demo": About(
        "serein's demo corpus", "English", "en", "a machine's voices, which say nothing about people",
        "spoken by eSpeak NG on the machine that ran `serein demo`",
    ),
    "iemocap": About(
        "IEMOCAP", "English", "en", "acted dialogues",
        "for research, on request from the University of Southern California; not to be passed on",
    ),
    "ravdess": About("RAVDESS", "English", "en", "two acted sentences", "CC BY-NC-SA 4.0"),
    "urdu": About("URDU-Dataset", "Urdu", "ur", "clips of talk shows", "for research only"),
}  # fmt: skip
"""The corpora that serein reads, by the names that its readers give them: see docs/corpora.md."""
