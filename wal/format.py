"""Constants of the log's format. docs/log_format.md explains them, with a worked example."""

from __future__ import annotations

import struct

FORMAT = 1

SEGMENT_MAGIC = b"WALSEGMT"
HISTORY_MAGIC = b"WALHISTO"
HEAD_MAGIC = b"WALHEAD\x00"
SLOT_MAGIC = b"WALSLOT\x00"
FRAME_MAGIC = b"\xf7WLf"

BATCH = 1
SEAL = 2
HEADERS = 3  # only in history files: a batch without its bodies

# magic, format, reserved, log id, number, first LSN, CRC of the frame before; then the CRC of these
SEGMENT_FIELDS = struct.Struct("<8sI4x16sQQI")
# magic, kind, reserved, payload length, LSN, CRC of the frame before; then the CRC of these and the payload
FRAME_FIELDS = struct.Struct("<4sB3sQQI")
CRC = struct.Struct("<I")
COUNT = struct.Struct("<I")
LENGTHS = struct.Struct("<II")  # header, body
LENGTH = struct.Struct("<I")  # header alone, in history files
SUCCESSOR = struct.Struct("<Q")
WORD = struct.Struct("<QQ")  # value, complement
WORDS = struct.Struct("<QQQQ")
HEAD_FIELDS = struct.Struct("<8sI4x16s")
# magic, format, reserved, log id, LSN, token, link to the slot before, bytes of headers: this part never changes ...
SLOT_FIELDS = struct.Struct("<8sI4x16sQ16s32sQ")
# ... kind, reserved, the LSN up to which bodies are trimmed, bytes of bodies
SLOT_STATE = struct.Struct("<B7xQQ")

SEGMENT_HEADER = SEGMENT_FIELDS.size + CRC.size
FRAME_HEADER = FRAME_FIELDS.size + CRC.size
ALIGN = 8
SEAL_SIZE = FRAME_HEADER + SUCCESSOR.size
HEAD_SIZE = 4096
CHUNK = 2**20  # bytes; zeros are written ahead in steps of this size
MASK = 2**64 - 1

RESERVED = b"\x00\x00\x00"
PADDING = tuple(bytes(-size % ALIGN) for size in range(ALIGN))  # by size modulo ALIGN


def padded(size: int) -> int:
    """`size` rounded up to the alignment of frames."""
    return (size + ALIGN - 1) & -ALIGN
