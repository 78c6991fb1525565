"""Safetensors files taken apart and put together, with nothing of ours."""

import json
import struct


def parts(path):
    """The header and the bytes of the tensors."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def entry_of(header):
    return json.loads(header["__metadata__"]["mdgnn"])


def joined(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
