"""Multipart bodies: one file, which is the part named ``file``; other parts may be fields, which nobody reads."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serein.serve.refusals import Refusal
from serein.serve.replies import PredictQuery, TimelineQuery

MOST_PARTS = 16  # parsed on the event loop, where thousands of tiny ones would keep everybody waiting
PARAMETERS = PredictQuery.model_fields.keys() | TimelineQuery.model_fields.keys()


class OneFile:
    """Takes a body in chunks and keeps the file, in memory; its name is never looked at.

    python-multipart bounds the number and size of a part's headers, but not the number of parts.

    Args:
        content_type: the request's header.

    Raises:
        Refusal: the header names no boundary.
    """

    def __init__(self, content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Refusal("bad_multipart")
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._parts = 0
        self._found = self._in_file = self._complete = False
        self._body = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._extend_name,
                    "on_header_value": self._extend_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._check_headers,
                    "on_part_data": self._extend_body,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Refusal("bad_multipart") from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            Refusal: they are no multipart, hold more than one file, too many parts, or a field that belongs elsewhere.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refusal("bad_multipart") from error

    def body(self) -> bytearray:
        """The file's bytes.

        Raises:
            Refusal: the body ended before its last boundary, or held no file.
        """
        if not (self._found and self._complete):
            raise Refusal("bad_multipart")
        return self._body

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise Refusal("bad_multipart", f"a multipart body may have {MOST_PARTS} parts; send one, named `file`")
        self._headers.clear()

    def _extend_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _extend_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _check_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode(errors="replace")
        if name in PARAMETERS:
            raise Refusal("bad_multipart", f"`{name}` goes into the address: ?{name}=...")
        self._in_file = name == "file"  # whether or not the client says what the file is called
        second = self._in_file and self._found
        elsewhere = not self._in_file and b"filename" in options
        if second or elsewhere:
            raise Refusal("bad_multipart")
        self._found |= self._in_file

    def _extend_body(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._body += data[start:end]

    def _end(self) -> None:
        self._complete = True
