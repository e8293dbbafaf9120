"""What makes a run's score mean less than it seems to, in a few words for tables."""

import re

from serein.evaluate.runs import Run

# as `serein.corpus.protocol.Leak` says it
_VALIDATION_TALKERS_TRAIN = re.compile(r"fold \S+: \d+ talkers? (is|are) in both train and validation\b")


def remarks(run: Run) -> list[str]:
    """What to know beside the score; for its interval, what leaving a talker out does not show.

    An interval counts a talker as left out whose utterances have still trained the model, or chosen its epoch.
    """
    flags = {
        "ORACLE: intervals too narrow": run.protocol.oracle,
        "TALKERS SHARED: intervals too narrow": run.protocol.shares_talkers,
        "validation talkers also train": not run.protocol.shares_talkers
        and any(_VALIDATION_TALKERS_TRAIN.match(leak) for leak in run.leaks),
        "transductive: intervals too narrow": run.adapter_training == "transductive",
        "talker statistics": run.talker_statistics != "none",
        "synthetic voices": run.synthetic,
        "collapsed": any(done.collapsed for done in run.fold_runs),
    }
    return [flag for flag, applies in flags.items() if applies]
