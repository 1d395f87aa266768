"""How tokens are shown: white space and controls by signs."""


def token_text(piece: bytes) -> str:
    """Return a token's bytes so that all can be seen: ↵ for a line's end, \\xNN for bytes without a
    picture.
    """

    def sign(character: str) -> str:
        if character.isprintable():
            return character
        return {"\n": "↵", "\t": "⇥"}.get(character) or "".join(
            f"\\x{byte:02x}" for byte in character.encode()
        )

    return "".join(map(sign, piece.decode("utf-8", errors="backslashreplace"))) or "∅"


def visible(text: str) -> str:
    """Return a token's text with a dot for each space."""
    return text.replace(" ", "·")
