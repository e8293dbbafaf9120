"""What makes a run's score mean less than it seems to, in a few words for tables."""

import re
from collections import Counter

from serein.evaluate.runs import IMPORTED, Run

_FEW = 4  # talkers: with fewer who show a label `benchmarks/interval_coverage.py` finds intervals too narrow
# as `serein.corpus.protocol.Leak` says it
_RECORDING_ON_BOTH_SIDES = re.compile(r"fold \S+: \d+ recordings? (is|are) in both (train|validation) and test\b")
_VALIDATION_TALKERS_TRAIN = re.compile(r"fold \S+: \d+ talkers? (is|are) in both train and validation\b")


def remarks(run: Run) -> list[str]:
    """What to know beside the score; for its interval, what leaving a talker out does not show.

    An interval counts a talker as left out whose utterances have still trained the model, or chosen its epoch.
    """
    flags = {
        "made elsewhere": run.system == IMPORTED,
        "ORACLE: intervals too narrow": run.protocol.oracle,
        "TALKERS SHARED: intervals too narrow": run.protocol.shares_talkers,
        "validation talkers also train": not run.protocol.shares_talkers
        and any(_VALIDATION_TALKERS_TRAIN.match(leak) for leak in run.leaks),
        "a recording is on both sides": any(_RECORDING_ON_BOTH_SIDES.match(leak) for leak in run.leaks),
        "transductive: intervals too narrow": run.adapter_training == "transductive",
        "a label of few talkers: intervals too narrow": _has_rare_label(run),
        "talker statistics": run.talker_statistics != "none",
        "synthetic voices": run.synthetic,
        "collapsed": any(done.collapsed for done in run.fold_runs),
        f"utterances not read: {len(run.without_frames)}": bool(run.without_frames),
    }
    return [flag for flag, applies in flags.items() if applies]


def _has_rare_label(run: Run) -> bool:
    """Whether a label is that of few talkers, in a corpus that has more of them."""
    pairs = set(run.truths().values())
    shown_by = Counter(truth for _, truth in pairs)
    return min(shown_by.values()) < min(_FEW, len({talker for talker, _ in pairs}))
