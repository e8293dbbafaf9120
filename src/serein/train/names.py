"""What the systems are called in tables."""

from collections.abc import Sequence

from serein.train.heads import HEADS

NAMES = {
    "linear": "linear probe",
    **{key: head.name for key, head in HEADS.items()},
    "lpmn-selected": "LPMN-style, 60 % of the prototypes",
}
ADAPTER_NAMES = {
    "none": "adapter, fresh",
    "inductive": "adapter, trained without labels",
    "transductive": "adapter, trained without labels, TRANSDUCTIVE",
    "elsewhere": "adapter, trained without labels on other corpora",
}


def run_name(
    system: str,
    adapter_training: str,
    talker_statistics: bool,
    *,
    others: Sequence[str] = (),
    members: int = 1,
    speeds: int = 1,
) -> str:
    """What a run is called in tables.

    Args:
        system: a key of :data:`serein.train.systems.SYSTEMS`.
        adapter_training: what adapter training heard.
        talker_statistics: whether frames are standardised talker by talker.
        others: names of the other corpora that adapter training heard.
        members: how many networks are averaged; the linear probe is always one.
        speeds: at how many the test utterances are heard.
    """
    name = NAMES.get(system) or ADAPTER_NAMES[adapter_training]
    if others:
        names = ", ".join(dict.fromkeys(others))
        name += f" ({names})" if adapter_training == "elsewhere" else f", and {names}"
    if members > 1 and system != "linear":
        name += f", {members} averaged"
    if speeds > 1:
        name += f", heard at {speeds} speeds"
    return f"{name}, with talker statistics" if talker_statistics else name
