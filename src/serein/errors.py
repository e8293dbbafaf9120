"""Errors that a user can act on: each says what is wrong, where, and what to do, and carries an exit code."""


class SereinError(Exception):
    """The run failed for a reason a user can mend; the command line prints the text, never a traceback."""

    exit_code = 1


class UsageError(SereinError):
    """A setting or an argument is wrong: an unknown recipe key, an unknown protocol, options that clash."""

    exit_code = 2


class CorpusError(SereinError):
    """A corpus, its table, a protocol or a run folder cannot be used as it is."""

    exit_code = 4


class StoreError(SereinError):
    """A frame store is damaged, or was made with other settings than the ones asked for."""

    exit_code = 4


class ModelError(SereinError):
    """A pretrained encoder or a model folder is missing, incomplete or out of reach."""

    exit_code = 5


class Diverged(SereinError):
    """A training's loss, or what it leaves, is infinite or not a number."""


class AudioError(SereinError):
    """A recording cannot be used; the subclasses say why."""

    exit_code = 4


class UnsupportedAudio(AudioError):
    """The bytes are not audio in a format that serein decodes."""


class CorruptAudio(AudioError):
    """The file says it is audio, but its header or its data is damaged or cannot be true."""


class TooShort(AudioError):
    """Fewer samples than one frame of the encoder needs."""


class NonFiniteAudio(AudioError):
    """Samples that are not numbers, or infinite."""
