"""Sizes of which a few programs serve all."""


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below the number: of such sizes a few programs serve all."""
    return 1 << max(0, number - 1).bit_length()
