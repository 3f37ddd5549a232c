"""Lines that a mail program broke to be flowed together again → paragraphs. Pure, linear. RFC 3676 section 4."""

from typing import Final

_SIGNATURE: Final = "-- "


def unflowed(text: str, *, delete_space: bool) -> str:
    """`text` with LF line ends; `delete_space`: DelSp=yes (4.1): the space before a soft break is not the text's."""
    out: list[str] = []
    pieces: list[str] = []
    depth = -1  # of the paragraph that is open, -1: none is
    for line in text.split("\n"):
        here = len(line) - len(line.lstrip(">"))
        shown = line[here:]
        # 4.4: a line is stuffed with a space where it would begin with one, with ">" or with "From ".
        if shown[:1] == " ":
            shown = shown[1:]
        # 4.3: the line before a signature is fixed, whatever ends it. 4.5: quotes of two depths never flow together.
        fixed = shown == _SIGNATURE or not shown.endswith(" ")
        if depth >= 0 and (here != depth or shown == _SIGNATURE):
            out.append(_line("".join(pieces), depth))
            pieces, depth = [], -1
        pieces.append(shown[:-1] if delete_space and not fixed else shown)
        if fixed:
            out.append(_line("".join(pieces), here))
            pieces, depth = [], -1
        else:
            depth = here
    if depth >= 0:
        out.append(_line("".join(pieces), depth))
    return "\n".join(out)


def _line(text: str, depth: int) -> str:
    return f"{'>' * depth} {text}" if depth else text
