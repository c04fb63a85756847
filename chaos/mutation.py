"""Damaged image files: any number of them, each made from a seed and its number alone."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from chaos import files

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class Mutant:
    """A damaged file, and how it came about: the honest file and the damages, in order."""

    recipe: str
    data: bytes


def mutant(seed: int, number: int) -> Mutant:
    """The file of this number; the same for the same seed, on every machine."""
    dice = random.Random(f"{seed}-{number}")
    names = list(files.honest())
    name = dice.choice(names)
    data = files.honest()[name]
    recipe = [name]
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5))):
        damage = dice.choice(_DAMAGES)
        recipe.append(damage.__name__.strip("_"))
        data = damage(data, dice)[:MAX_BYTES]
    return Mutant(" + ".join(recipe), data)


# Bytes


def _flip_bits(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.randint(1, 8) if out else 0):
        out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, dice: random.Random) -> bytes:
    """A number of one, two or four bytes that programs get wrong, in either order."""
    size, order = dice.choice((1, 2, 4)), dice.choice("<>")
    number = dice.choice(NUMBERS) & (2 ** (8 * size) - 1)
    packed = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], number)
    place = dice.randrange(max(1, min(len(data), dice.choice((32, 256, len(data) or 1)))))
    return data[:place] + packed + data[place + size :]


def _truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _cut(data: bytes, dice: random.Random) -> bytes:
    start, length = _slice(data, dice)
    return data[:start] + data[start + length :]


def _repeat(data: bytes, dice: random.Random) -> bytes:
    start, length = _slice(data, dice)
    part = data[start : start + length]
    return data[:start] + part * dice.choice((2, 3, 10, 300)) + data[start + length :]


def _insert(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + dice.randbytes(dice.choice((1, 2, 4, 64, 4096))) + data[place:]


def _fill(data: bytes, dice: random.Random) -> bytes:
    start, length = _slice(data, dice)
    return data[:start] + bytes([dice.choice((0, 255, 127))]) * length + data[start + length :]


def _splice(data: bytes, dice: random.Random) -> bytes:
    """The beginning of one file and the end of another, of any format."""
    other = dice.choice(list(files.honest().values()))
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]


def _append(data: bytes, dice: random.Random) -> bytes:
    return data + dice.choice(list(files.honest().values()))


def _slice(data: bytes, dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(len(data) + 1)
    return start, dice.randint(0, min(len(data) - start, dice.choice((4, 32, 256, 4096))))


# Parts of a format: what a damaged file cannot reach, as its checksums or lengths would give it away


def _operate(data: bytes, dice: random.Random) -> bytes:
    """Drop, repeat, swap, empty or damage whole parts, their lengths and checksums right again."""
    parts = _parts(data)
    if len(parts) < 2:
        return _flip_bits(data, dice)
    first, second = dice.randrange(len(parts)), dice.randrange(len(parts))
    kind, body = parts[first]
    match dice.randrange(6):
        case 0:
            del parts[first]
        case 1:
            parts[first:first] = [parts[first]] * dice.choice((1, 2, 50))
        case 2:
            parts[first], parts[second] = parts[second], parts[first]
        case 3:
            parts[first] = kind, b""
        case 4:
            parts[first] = kind, _overwrite(body, dice)
        case _:
            parts[first] = parts[second][0], body
    return _join(data, parts)


def _garbage_part(data: bytes, dice: random.Random) -> bytes:
    """EXIF, a colour profile or a text that is noise, or begins like one."""
    noise = dice.choice((b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"acsp")) + dice.randbytes(
        dice.randint(0, 3000)
    )
    parts = _parts(data)
    if data.startswith(b"\x89PNG"):
        squeezed = b"p\0\0" + zlib.compress(noise)
        new = dice.choice(
            ((b"eXIf", noise), (b"iCCP", squeezed), (b"zTXt", squeezed), (b"tRNS", noise), (b"PLTE", noise))
        )
    elif data.startswith(b"\xff\xd8"):
        named = {b"\xe1": (b"Exif\0\0",), b"\xe2": (b"ICC_PROFILE\0\1\1", b"MPF\0"), b"\xee": (b"Adobe",)}
        marker = dice.choice((*named, b"\xdb", b"\xc4"))
        new = marker, dice.choice(named.get(marker, (b"",))) + noise
    elif data.startswith(b"RIFF"):
        new = dice.choice(((b"EXIF", noise), (b"ICCP", noise), (b"ALPH", noise), (b"ANMF", noise)))
    else:
        return _insert(data, dice)
    parts.insert(min(len(parts), dice.choice((1, 1, 2))), new)
    return _join(data, parts)


def _lie_about_the_size(data: bytes, dice: random.Random) -> bytes:
    """Another width and height in the header, where the header is else right."""
    width, height = (dice.choice((0, 1, 7, 41, 999, 1400, 30_000, 65_535, 2**31 - 1)) for _ in range(2))
    if data.startswith(b"\x89PNG") and len(data) > 33:
        header = struct.pack(">II", width, height) + data[24:29]
        return data[:8] + files.png_chunk(b"IHDR", header) + data[33:]
    if data.startswith(b"BM") and len(data) > 26:
        return data[:18] + struct.pack("<ii", width, dice.choice((1, -1)) * height) + data[26:]
    if data.startswith(b"\xff\xd8"):
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if 0 < (place := data.find(marker)) < len(data) - 9:
                size = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
                return data[: place + 5] + size + data[place + 9 :]
    if data.startswith(b"RIFF") and data[12:16] == b"VP8X":
        size = (width & 0xFFFFFF).to_bytes(3, "little") + (height & 0xFFFFFF).to_bytes(3, "little")
        return data[:24] + size + data[30:]
    if data.startswith(b"II*\0"):
        return _tiff_entry(
            data, dice, dice.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 324))
        )
    return _overwrite(data, dice)


def _tiff_entry(data: bytes, dice: random.Random, tag: int) -> bytes:
    """Another value, count or type of a tag of the first directory."""
    directory = int.from_bytes(data[4:8], "little")
    place = data.find(struct.pack("<H", tag), directory)
    if place < 0:
        return _overwrite(data, dice)
    offset, size = dice.choice(((2, 2), (4, 4), (8, 4), (8, 4)))
    number = dice.choice(NUMBERS) & (2 ** (8 * size) - 1)
    return data[: place + offset] + number.to_bytes(size, "little") + data[place + offset + size :]


def _parts(data: bytes) -> list[tuple[bytes, bytes]]:
    """Chunks of a PNG or WebP, segments of a JPEG up to its first scan; none of other formats."""
    found: list[tuple[bytes, bytes]] = []
    if data.startswith(b"\x89PNG"):
        place = 8
        while place + 8 <= len(data):
            length = int.from_bytes(data[place : place + 4])
            found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
            place += 12 + length
    elif data.startswith(b"RIFF"):
        place = 12
        while place + 8 <= len(data):
            length = int.from_bytes(data[place + 4 : place + 8], "little")
            found.append((data[place : place + 4], data[place + 8 : place + 8 + length]))
            place += 8 + length + length % 2
    elif data.startswith(b"\xff\xd8"):
        place = 2
        while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
            length = int.from_bytes(data[place + 2 : place + 4])
            found.append((data[place + 1 : place + 2], data[place + 4 : place + 2 + length]))
            place += 2 + max(2, length)
        found.append((b"", data[place:]))
    return found


def _join(data: bytes, parts: list[tuple[bytes, bytes]]) -> bytes:
    if data.startswith(b"\x89PNG"):
        return data[:8] + b"".join(files.png_chunk(kind, body) for kind, body in parts)
    if data.startswith(b"RIFF"):
        chunks = [
            kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for kind, body in parts
        ]
        joined = b"WEBP" + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(joined)) + joined
    segments = [
        b"\xff" + kind + struct.pack(">H", min(65_535, len(body) + 2)) + body if kind else body
        for kind, body in parts
    ]
    return b"\xff\xd8" + b"".join(segments)


# Bombs of a size that many of them can be tried


@cache
def _bombs() -> tuple[bytes, ...]:
    zeros = files.deflated_zeros(64 * files.MEBIBYTE)
    small = zlib.compress(bytes(33 * 32))
    return (
        files.png(8000, 8000, zeros),
        files.png(32, 32, zeros),
        files.png(32, 32, small, files.png_chunk(b"iCCP", b"p\0\0" + zeros)),
        files.png(32, 32, small, files.png_chunk(b"zTXt", b"t\0\0" + zeros)),
        files.png(32, 32, small, files.png_chunk(b"tEXt", b"a\0b") * 12_000),
        files.tiff(
            zeros, t256=[10], t257=[10], t259=[8], t322=[8192], t323=[8192], t324=[8], t325=[len(zeros)]
        ),
        files.tiff(zeros, t256=[10], t257=[10], t259=[8], t278=[2**31], t273=[8], t279=[len(zeros)]),
        files.jpeg_of_scans(3000, 400),
    )


def _bomb(data: bytes, dice: random.Random) -> bytes:
    bomb = dice.choice(_bombs())
    return bomb if dice.randrange(3) else _overwrite(bomb, dice)


_DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip_bits, _overwrite, _truncate, _cut, _repeat, _insert, _fill, _splice, _append) * 2,
    *(_operate, _garbage_part, _lie_about_the_size) * 5,
    _bomb,
)
