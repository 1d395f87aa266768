"""Names that files and folders may have, and that programs get wrong."""

AWKWARD_NAMES = [
    "a b",
    "[x]*?",
    "{a,b}",
    'it\'s "so"',
    "two\nlines",
    "~",
    "-dash",
    "$HOME `x`;&|",
    "#1%20",
    "漢" * 66,  # 198 bytes
    "[b]\x1b[31m",
    ".hidden",
]
