"""What makes a run's score mean less than it seems to, in a few words for tables."""

import re
from collections import Counter

from serein.evaluate.runs import IMPORTED, Run, label_share

_FEW = 4  # talkers: with fewer who show a label `benchmarks/interval_coverage.py` finds intervals too narrow
# as `serein.corpus.protocol.Leak` says it
_RECORDING_ON_BOTH_SIDES = re.compile(r"fold \S+: \d+ recordings? (is|are) in both (train|validation) and test\b")
_VALIDATION_TALKERS_TRAIN = re.compile(r"fold \S+: \d+ talkers? (is|are) in both train and validation\b")


def remarks(run: Run) -> list[str]:
    """What to know beside the score; for its interval, what leaving a talker out does not show.

    An interval counts a talker as left out whose utterances have still trained the model, or chosen its epoch.
    """
    share = label_share(run)
    untested = sorted(set(run.protocol.labels) - {truth for _, truth in run.truths().values()})
    flags = {
        "made elsewhere": run.system == IMPORTED,
        "ORACLE: intervals too narrow": run.protocol.oracle,
        "TALKERS SHARED: intervals too narrow": run.protocol.shares_talkers,
        "validation talkers also train": not run.protocol.shares_talkers
        and any(_VALIDATION_TALKERS_TRAIN.match(leak) for leak in run.leaks),
        "a recording is on both sides": any(_RECORDING_ON_BOTH_SIDES.match(leak) for leak in run.leaks),
        "transductive: intervals too narrow": run.adapter_training == "transductive",
        "a label of few talkers: intervals too narrow": _has_rare_label(run),
        f"UA without {', '.join(untested)}: no test utterance": bool(untested),
        f"{share_in_percent(share)} of the training labels": share < 1,
        "talker statistics": run.talker_statistics != "none",
        "synthetic voices": run.synthetic,
        "collapsed": any(done.collapsed for done in run.fold_runs),
        f"utterances not read: {len(run.without_frames)}": bool(run.without_frames),
    }
    return [flag for flag, applies in flags.items() if applies]


def share_in_percent(share: float) -> str:
    """A share of labels as it stands in tables.

    Example:
        >>> share_in_percent(0.05), share_in_percent(0.125), share_in_percent(1.0)
        ('5 %', '12.5 %', '100 %')
    """
    return f"{100 * share:g} %"


def _has_rare_label(run: Run) -> bool:
    """Whether a label is that of few talkers, in a corpus that has more of them."""
    pairs = set(run.truths().values())
    shown_by = Counter(truth for _, truth in pairs)
    return min(shown_by.values()) < min(_FEW, len({talker for talker, _ in pairs}))
