"""The page about local attributes: HTML, the same in Markdown, every number as JSON, and clips to listen to."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serein.evaluate import document
from serein.evaluate.attributes import Information, KnownFrames, NearestFrame, information, most_used, nearest, usage
from serein.evaluate.document import Block, Cards, Clips, Details, Paragraph, Picture, Section, Table, Title
from serein.files import as_json, write_atomically

FORMAT = 1
FRAMES_EACH = 5  # clips of an attribute, each of another talker

Cut = Callable[[NearestFrame], bytes]
"""The sound round a frame, as the bytes of a WAV file."""


def write_page(folder: Path, corpus: str, frames: KnownFrames, listen: int, cut: Cut) -> Path:
    """Write ``attributes.html``, ``attributes.md``, ``attributes.json``, ``figures/*.svg`` and ``clips/*.wav``.

    The same frames give the same bytes. The page needs no network.

    Args:
        folder: where to; made where it is missing.
        corpus: its name.
        frames: all frames, with their attributes.
        listen: for how many attributes, the most used first, there are clips.
        cut: gives the clips.

    Returns:
        the HTML page.
    """
    shared = information(frames)
    close = {attribute: nearest(frames, attribute, FRAMES_EACH) for attribute in most_used(frames.counts, listen)}
    pictures = _pictures(frames, shared)
    sounds = {attribute: _clips(attribute, of_attribute, cut) for attribute, of_attribute in close.items()}
    blocks: list[Block] = [
        *_opening(corpus, frames),
        *_carried(shared, pictures["information"]),
        Section("How evenly they are used"),
        pictures["usage"],
        *_listening(frames, sounds),
    ]
    page = folder / "attributes.html"
    contents = {
        **{folder / "figures" / f"{name}.svg": picture.svg.encode() for name, picture in pictures.items()},
        **{folder / "clips" / f"{name}.wav": wav for clips in sounds.values() for name, _, wav in clips.clips},
        folder / "attributes.md": f"{document.markdown(blocks)}\n".encode(),
        folder / "attributes.json": as_json(_numbers(corpus, frames, shared, close)).encode(),
        page: document.page(_title(corpus), blocks, "All numbers are in attributes.json.").encode(),
    }
    for path, content in contents.items():
        write_atomically(path, content)
    return page


def _opening(corpus: str, frames: KnownFrames) -> list[Block]:
    used = usage(frames.counts)
    cards = [
        ("In use", f"{100 * used.usage:.1f} %", f"of {frames.attributes:,} attributes"),
        ("Perplexity", f"{used.perplexity * frames.attributes:,.1f}", f"{100 * used.perplexity:.1f} % of their number"),
        ("Frames", f"{len(frames.assignments):,}", f"{frames.frame_rate:g} a second"),
        (
            "Utterances",
            f"{len(frames.utterances):,}",
            f"of {len({utterance.talker for utterance in frames.utterances}):,} talkers",
        ),
    ]
    return [
        Title(_title(corpus)),
        Paragraph("Which of the attributes, learned without labels, each frame is nearest to, and what that tells."),
        Cards(cards),
        Paragraph(
            "In use: the attribute gets at least a tenth of its even share of the frames. Perplexity: how many "
            "attributes, used alike, would be as hard to guess."
        ),
    ]


def _carried(shared: Sequence[Information], bars: Picture) -> list[Block]:
    rows = [
        [
            row.name,
            f"{row.values:,}",
            f"{row.frames:,}",
            *(f"{value:.4f}" for value in (row.nmi, row.shuffled_mean, row.shuffled_high, row.ceiling)),
        ]
        for row in shared
    ]
    header = ["Property", "Values", "Frames", "NMI", "Shuffled, mean", "Shuffled, 95 %", "Highest possible"]
    return [
        Section("What they carry"),
        bars,
        Table(header, rows),
        Paragraph(
            "NMI: mutual information of a frame's attribute and the property, over the mean of their entropies. Many "
            "attributes tell something of anything by chance: only what exceeds the shuffled value means something. "
            "A property of few values cannot reach 1 beside many attributes; the last column says how far it could go."
        ),
        Paragraph(
            "Emotion, talker, gender and text are shuffled over utterances, whose frames stay together, and what is "
            "the same in all utterances of a talker, as gender is, over talkers. Loudness (fifths of the frames by "
            "energy), voicing (voiced, unvoiced, or silent: 30 dB below the utterance's loudest frame) and position "
            "(fifths of the utterance) are taken from other utterances, from a random frame on. Talker and gender go "
            "together, as do text and emotion where emotions have their own texts: the numbers do not say which of "
            "two such properties it is."
        ),
    ]


def _listening(frames: KnownFrames, sounds: dict[int, Clips]) -> list[Block]:
    if not sounds:
        return []
    total = len(frames.assignments)
    return [
        Section("Listen"),
        Paragraph(
            "Half a second round the frames closest to each of the most used attributes, at most one a talker. These "
            "are pieces of the recordings: the corpus's licence holds for them, and for this page."
        ),
        *(
            Details(f"Attribute {attribute}: {100 * frames.counts[attribute] / total:.2f} % of the frames", [clips])
            for attribute, clips in sounds.items()
        ),
    ]


def _clips(attribute: int, close: Sequence[NearestFrame], cut: Cut) -> Clips:
    return Clips(
        [
            (
                f"attribute-{attribute:04}-{place}",
                f"{frame.utterance.id} at {frame.seconds:.2f} s (talker {frame.utterance.talker}, "
                f"distance {frame.distance:.3g})",
                cut(frame),
            )
            for place, frame in enumerate(close, start=1)
        ]
    )


def _pictures(frames: KnownFrames, shared: Sequence[Information]) -> dict[str, Picture]:
    from serein.evaluate import plots  # needs matplotlib, which counting does not

    bars = plots.information_bars(
        [row.name for row in shared], [row.nmi for row in shared], [row.shuffled_high for row in shared]
    )
    curve = plots.usage_curve(frames.counts)
    return {
        "information": Picture("information", bars, "How much a frame's attribute tells of each property."),
        "usage": Picture("usage", curve, "Share of the frames that each attribute gets, on a logarithmic scale."),
    }


def _numbers(
    corpus: str, frames: KnownFrames, shared: Sequence[Information], close: dict[int, list[NearestFrame]]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "corpus": corpus,
        "attributes": frames.attributes,
        "frames": len(frames.assignments),
        "frame_rate": frames.frame_rate,
        **usage(frames.counts)._asdict(),
        "counts": frames.counts.tolist(),
        "information": [row._asdict() for row in shared],
        "nearest": [
            {
                "attribute": attribute,
                "id": frame.utterance.id,
                "talker": frame.utterance.talker,
                "seconds": frame.seconds,
                "distance": frame.distance,
            }
            for attribute, of_attribute in close.items()
            for frame in of_attribute
        ],
    }


def _title(corpus: str) -> str:
    return f"Local attributes ({corpus})"
