"""What a container declares, held against the bytes that are there.

libsndfile decodes a cut WAV as a shorter one, a damaged Ogg without the damaged seconds, an MP3 behind a WAV
header as noise, and says nothing. These checks do. They decode nothing and look only at the structure: chunk
sizes (WAV, AIFF), page checksums (Ogg), frame headers (MP3). libsndfile itself refuses a cut FLAC or CAF.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from serein.errors import CorruptAudio, UnsupportedAudio

HEADER_SLACK = 64  # bytes: some writers count their own header into the size of the sound
MOST_CHUNKS = 1_000  # before the sound; a file of empty chunks must not keep us for hours
OPEN_LENGTH = "the header leaves the length open; everything after it was taken as sound"
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
XING = re.compile(rb"(?:Xing|Info)...[\1\3\5\7\x09\x0b\x0d\x0f](?!\0{4})", re.DOTALL)  # with a length in it
NOT_BEHIND_TAGS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b"OggS")  # libsndfile reads them wrongly there
MPEG_MAY_FOLLOW = re.compile(rb"\xff|ID3")
SEARCHED = 65_536  # bytes behind the last frame
MPEG_SHIFT = {3: 0, 2: 1, 0: 2}  # version bits of MPEG 1, 2, 2.5: how often the sample rate is halved
MPEG_KILOBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
)


@dataclass(frozen=True, slots=True)
class Container:
    """A container that has passed its checks.

    Attributes:
        stream: what to decode: the stream itself, or the same with a mended header.
        warnings: what was wrong and did no harm.
        frames: samples a channel that must come out; None where libsndfile's own count is right.
    """

    stream: io.BufferedIOBase
    warnings: tuple[str, ...] = ()
    frames: int | None = None


class _Overlaid(io.BufferedIOBase):
    """A stream that reads other bytes at one place; nothing of it is copied."""

    def __init__(self, stream: io.BufferedIOBase, place: int, overlay: bytes) -> None:
        self._stream, self._place, self._overlay = stream, place, overlay

    def seek(self, target: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(target, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._stream.tell()
        count = self._stream.readinto(buffer)
        view = memoryview(buffer).cast("B")
        for number, byte in enumerate(self._overlay, self._place - start):
            if 0 <= number < count:
                view[number] = byte
        return count


def check_container(stream: io.BufferedIOBase, name: str) -> Container:
    """Recognise a container by its first bytes and check its structure.

    Args:
        stream: a seekable stream; it is read from its start and left anywhere.
        name: what error messages call it.

    Raises:
        UnsupportedAudio: the stream starts like none of WAV, AIFF, CAF, FLAC, Ogg and MP3.
        CorruptAudio: sound is missing, damaged, or not what the header says.
    """
    stream.seek(0)
    magic = stream.read(12)
    match magic[:4], magic[8:]:
        case ((b"RIFF" | b"RF64"), b"WAVE"):
            return _check_chunks(stream, "<", name)
        case (b"RIFX", b"WAVE") | (b"FORM", b"AIFF" | b"AIFC"):
            return _check_chunks(stream, ">", name)
        case b"OggS", _:
            return _check_ogg(stream, name)
        case ((b"fLaC" | b"caff"), _):
            return Container(stream)
    start = _behind_tags(stream)
    stream.seek(start)
    if start and stream.read(4) in NOT_BEHIND_TAGS:
        raise UnsupportedAudio(
            f"{name}: tags for MP3 stand in front of its header; cut off the first {start} bytes, "
            "or export the file again"
        )
    if start or _is_mpeg(magic):
        return _check_mp3(stream, start, name)
    if not magic:
        raise UnsupportedAudio(f"{name}: is empty")
    kind = "is MP4 or M4A" if magic[4:8] == b"ftyp" else "does not start like an audio file"
    raise UnsupportedAudio(
        f"{name}: {kind}; serein decodes WAV, AIFF, CAF, FLAC, Ogg (Vorbis, Opus) and MP3: "
        "convert it with `ffmpeg -i INPUT OUTPUT.wav`"
    )


def _check_chunks(stream: io.BufferedIOBase, order: str, name: str) -> Container:
    """WAV and AIFF: a row of chunks with names and sizes; ``order`` is struct's sign for the byte order."""
    end = stream.seek(0, io.SEEK_END)
    position, long_size = 12, 0
    for _ in range(MOST_CHUNKS):
        stream.seek(position)
        head = stream.read(24)
        if len(head) < 8:
            break
        identity, size = struct.unpack_from(f"{order}4sI", head)
        position += 8
        if identity in (b"data", b"SSND"):
            stream.seek(position + (8 if identity == b"SSND" else 0))  # an offset and a block size come first
            payload = stream.read(8192)
            if inside := _compressed_kind(payload):
                raise CorruptAudio(
                    f"{name}: its header stands in front of {inside} and would turn it into noise; "
                    f"cut off the first {stream.tell() - len(payload)} bytes, or export the file again"
                )
            return _check_size(stream, position, size, long_size, end, name)
        if identity == b"ds64" and len(head) == 24:  # RF64 keeps here the sizes that 32 bits cannot hold
            (long_size,) = struct.unpack_from("<Q", head, 16)
        position += size + size % 2
    return Container(stream)  # no sound so far: libsndfile says what is wrong


def _check_size(stream: io.BufferedIOBase, start: int, size: int, long_size: int, end: int, name: str) -> Container:
    """Hold the declared size of the sound that begins at byte ``start`` against the ``end`` of the stream."""
    declared, present = long_size if long_size and size == 0xFFFFFFFF else size, end - start
    if declared == 0 and present:
        stream.seek(0)
        header = stream.read(8)
        # A WAV without sound may carry other chunks, but then its outer size is right. A recorder that was
        # stopped, or that wrote into a pipe, leaves both sizes wrong, and libsndfile would hear nothing.
        if header[:4] == b"RIFF" and struct.unpack_from("<I", header, 4)[0] != end - 8:
            return Container(_Overlaid(stream, start - 4, b"\xff\xff\xff\xff"), (OPEN_LENGTH,))
    if declared <= present:
        return Container(stream)
    if not long_size and -declared % 2**31 < 2**16:  # just under 2^31 or 2^32: what writers into pipes put there
        return Container(stream, (OPEN_LENGTH,))
    if declared - present <= HEADER_SLACK:
        return Container(stream, (f"the header promises {declared - present} bytes more than there are",))
    raise CorruptAudio(f"{name}: is cut: {present} of the {declared} bytes of sound are there; copy it again")


def _compressed_kind(payload: bytes) -> str:
    """What compressed stream these bytes start; "" for plain samples."""
    for magic, kind in (
        (b"fLaC", "FLAC"),
        (b"OggS", "Ogg"),
        (b"ID3\2", "MP3"),
        (b"ID3\3", "MP3"),
        (b"ID3\4", "MP3"),
    ):
        if payload.startswith(magic):
            return kind
    # Samples can look like one frame header, but not like three at the distances that these declare.
    return "MP3" if _count_mp3(io.BytesIO(payload), 0, most=3)[0] == 3 else ""


def _check_ogg(stream: io.BufferedIOBase, name: str) -> Container:
    """Ogg: a row of pages with lengths, numbers and checksums; the last one is marked as the last."""
    stream.seek(0)
    position, last = 0, False
    following: dict[bytes, int] = {}  # number of the next page, by the serial number of the logical stream
    while (head := stream.read(27)).startswith(b"OggS"):
        sizes = stream.read(head[26]) if len(head) == 27 else b""
        body = stream.read(sum(sizes))
        if len(head) < 27 or len(sizes) < head[26] or len(body) < sum(sizes):
            raise CorruptAudio(f"{name}: is cut within an Ogg page; copy it again")
        serial = head[14:18]
        number, checksum = struct.unpack_from("<II", head, 18)
        page = head[:22] + bytes(4) + head[26:] + sizes + body
        if _ogg_checksum(page) != checksum or following.get(serial, number) != number:
            raise CorruptAudio(f"{name}: the Ogg page at byte {position} is damaged or misplaced; copy the file again")
        following[serial] = number + 1
        last = bool(head[5] & 4)
        position += len(page)
    if len(following) > 1:
        raise UnsupportedAudio(
            f"{name}: holds {len(following)} Ogg streams, of which libsndfile decodes only one; "
            "convert it with `ffmpeg -i INPUT OUTPUT.wav`"
        )
    if last:
        return Container(stream)
    if head:
        raise CorruptAudio(f"{name}: is damaged: no Ogg page at byte {position}; copy it again")
    return Container(stream, ("the Ogg stream has no end mark; it may be cut",))


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of RFC 3533: zlib's, but from the other end of each byte, from 0, and not inverted."""
    register = zlib.crc32(page.translate(BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2)


def _check_mp3(stream: io.BufferedIOBase, start: int, name: str) -> Container:
    """MP3: frames from byte ``start`` on, with no total length unless the first is a Xing, Info or VBRI header."""
    stream.seek(start)
    first = stream.read(200)
    if found := XING.search(first):
        if found[0][7] & 2 and len(first) >= found.end() + 8:  # it says its bytes too, behind its frames
            (size,) = struct.unpack_from(">I", first, found.end() + 4)
            _refuse_more_mp3(stream, start + size, name)
        return Container(stream)
    # Else libsndfile guesses the length from the first frames' bit rate, and reads no further than that.
    frame = _mp3_frame(first[:4])
    if frame and first.startswith(b"VBRI", 36) and len(first) >= 54:
        (promised,) = struct.unpack_from(">I", first, 50)
        return Container(stream, frames=promised * frame[1])
    _, samples, end = _count_mp3(stream, start)
    _refuse_more_mp3(stream, end, name)
    return Container(stream, frames=samples)


def _refuse_more_mp3(stream: io.BufferedIOBase, end: int, name: str) -> None:
    """Refuse frames behind the last one that is heard; tags and padding may stand there, or between."""
    stream.seek(end)
    for found in MPEG_MAY_FOLLOW.finditer(stream.read(SEARCHED)):
        if _count_mp3(stream, _behind_tag(stream, end + found.start()), most=3)[0] == 3:
            raise CorruptAudio(
                f"{name}: is damaged, or several MP3 files, one after the other: only the first part would be heard; "
                "split it, or convert it with `ffmpeg -i INPUT OUTPUT.wav`"
            )


def _behind_tags(stream: io.BufferedIOBase) -> int:
    """Where the sound begins: at the first byte, or behind the ID3v2 tags that stand there."""
    start = 0
    for _ in range(MOST_CHUNKS):
        if (end := _behind_tag(stream, start)) == start:
            break
        start = end
    return start


def _behind_tag(stream: io.BufferedIOBase, start: int) -> int:
    """Byte ``start``, or the end of the ID3v2 tag that stands there."""
    stream.seek(start)
    tag = stream.read(10)
    if tag.startswith(b"ID3") and len(tag) == 10:
        start += 10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    return start


def _count_mp3(stream: io.BufferedIOBase, start: int, *, most: int | None = None) -> tuple[int, int, int]:
    """Whole frames that follow each other from byte ``start``, the samples a channel in them, and where they end."""
    end = stream.seek(0, io.SEEK_END)
    count = samples = 0
    while count != most:
        stream.seek(start)
        frame = _mp3_frame(stream.read(4))
        if not frame or start + frame[0] > end:
            break
        start += frame[0]
        count += 1
        samples += frame[1]
    return count, samples, start


def _mp3_frame(header: bytes) -> tuple[int, int] | None:
    """Bytes, and samples a channel, of the frame with this header (layer III of ISO 11172-3, 13818-3)."""
    if not _is_mpeg(header) or header[1] & 0x06 != 0x02:
        return None
    shift, kilobits, rate = MPEG_SHIFT.get(header[1] >> 3 & 3), header[2] >> 4, header[2] >> 2 & 3
    if shift is None or kilobits in (0, 15) or rate == 3:
        return None
    samples = 576 if shift else 1152
    bits_a_second = 1000 * MPEG_KILOBITS[shift > 0][kilobits]
    hertz = (44_100, 48_000, 32_000)[rate] >> shift
    return samples * bits_a_second // 8 // hertz + (header[2] >> 1 & 1), samples


def _is_mpeg(header: bytes) -> bool:
    """Eleven bits set, then a layer; without a layer it is AAC."""
    return len(header) >= 4 and header[0] == 0xFF and header[1] & 0xE0 == 0xE0 and header[1] & 0x06 != 0
