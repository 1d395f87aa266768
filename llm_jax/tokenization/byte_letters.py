"""The printable letters that stand for bytes in the files of byte-level vocabularies."""


def _alphabet() -> dict[str, int]:
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


# GPT-2's spelling of bytes as visible letters.
BYTE_OF_LETTER = _alphabet()
