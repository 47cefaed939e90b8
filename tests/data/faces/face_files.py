"""What tests of the store write: faces of noise, files by name, and RecordIO in the exact format."""

import io
import struct
import zipfile

import numpy as np
from PIL import Image

MAGIC = bytes.fromhex("0a23d7ce")


def picture(seed, size=(112, 112), mode="RGB"):
    """Coloured blotches: like faces, JPEG keeps them well."""
    shape = (8, 8) if mode == "L" else (8, 8, 3)
    blotches = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image, kind="jpeg", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(seed, **kwargs):
    return encoded(picture(seed, **kwargs), quality=90)


def decoded(data):
    """Pillow's pixels, the oracle of ours."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def write(root, files):
    """`files` (name -> bytes) as a folder, or as a .zip when `root` ends so."""
    if root.suffix == ".zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return root
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def framed(payload):
    """One record as MXNet writes it: cut at every magic that lies at a multiple of 4."""
    parts, start, place = [], 0, payload.find(MAGIC)
    while place >= 0:
        if place % 4 == 0:
            parts.append(payload[start:place])
            start = place + 4
        place = payload.find(MAGIC, place + (4 if place % 4 == 0 else 1))
    parts.append(payload[start:])
    kinds = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    chunks = (
        MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
        for kind, part in zip(kinds, parts, strict=True)
    )
    return b"".join(chunks)


def payload(label, image=b"", key=0):
    """A record's header and image; `label` is a number or a list of them."""
    if isinstance(label, list):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0, key, 0, *label) + image
    return struct.pack("<IfQQ", 0, label, key, 0) + image


def write_records(rec, payloads):
    """A .rec of `payloads` (key -> bytes) in their order, and its .idx; returns the .rec."""
    rec.parent.mkdir(parents=True, exist_ok=True)
    lines = ""
    with rec.open("wb") as file:
        for key, value in payloads.items():
            lines += f"{key}\t{file.tell()}\n"
            file.write(framed(value))
    rec.with_suffix(".idx").write_text(lines)
    return rec


def insightface(images):
    """Payloads of (label, image) pairs as InsightFace lays them out; record 0 comes last."""
    count = len(images)
    labels = [label for label, _ in images]
    identities = max(labels) + 1
    found = {key: payload(float(label), image, key) for key, (label, image) in enumerate(images, 1)}
    for label in range(identities):
        keys = [key for key, other in enumerate(labels, 1) if other == label] or [1]
        found[count + 1 + label] = payload([keys[0], keys[-1] + 1.0])
    return found | {0: payload([count + 1.0, count + 1.0 + identities])}
