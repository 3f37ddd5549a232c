"""A file's bytes → what it is. Pure, and nothing of it is read but its first bytes and, of a ZIP, a few names.

Names and declared types are the sender's word (RFC 2046 4.5.1).
"""

import re
from typing import Final

UNKNOWN: Final = "application/octet-stream"
_ZIP: Final = "application/zip"
_OLE: Final = "application/x-ole-storage"
_SIGNATURES: Final = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"PK\x03\x04", _ZIP),
    (b"PK\x05\x06", _ZIP),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"MSCF\x00\x00\x00\x00", "application/vnd.ms-cab-compressed"),
    (b"{\\rtf", "application/rtf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OLE),
    (b"\x78\x9f\x3e\x22", "application/ms-tnef"),
    (b"MZ", "application/vnd.microsoft.portable-executable"),
    (b"\x7fELF", "application/x-elf"),
    (b"\xca\xfe\xba\xbe", "application/java-vm"),
    (b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"),
    (b"ITSF\x03\x00", "application/vnd.ms-htmlhelp"),
    (b"#!/", "text/x-shellscript"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
# Nearly every text begins with another byte than these, and is told at once.
_FIRST: Final = frozenset(signature[0] for signature, _ in _SIGNATURES) | frozenset(b"R\x00<\xef \r\n\t")
# ISO 14496-12 4.3: a box `ftyp` and its brand; RIFF has its kind in the same place.
_BRANDS: Final = ((b"heic", "image/heic"), (b"avif", "image/avif"), (b"qt", "video/quicktime"), (b"M4A", "audio/mp4"))
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_HTML: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}<(?:!doctype\s+html|html|head|script|body)[\s>]", re.IGNORECASE)
# What a ZIP is, by the names of its first files; ODF and EPUB say it in a file of its own (ODF 1.3 part 2 3.3).
_MIMETYPE: Final = re.compile(rb"mimetype(application/[a-z0-9.+-]{1,80})")
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_ODF: Final = "application/vnd.oasis."
_ZIPPED: Final = (
    (re.compile(rb"PK\x03\x04.{26}(?:.{2})?word/", re.DOTALL), f"{_OFFICE}wordprocessingml.document"),
    (re.compile(rb"PK\x03\x04.{26}(?:.{2})?xl/", re.DOTALL), f"{_OFFICE}spreadsheetml.sheet"),
    (re.compile(rb"PK\x03\x04.{26}(?:.{2})?ppt/", re.DOTALL), f"{_OFFICE}presentationml.presentation"),
    (re.compile(rb"PK\x03\x04.{26}(?:.{2})?META-INF/", re.DOTALL), "application/java-archive"),
)
_LOOK_AT: Final = 8192
# Declared types that say no more than the content does, or are one form of it.
_FORMS: Final = {
    _ZIP: ("application/x-zip", "application/x-zip-compressed", "application/epub+zip", "application/java-archive"),
    _OLE: ("application/msword", "application/vnd.ms-", "application/x-ms", "application/ms"),
    "application/gzip": ("application/x-gzip", "application/x-tar", "application/x-gtar", "application/x-compressed"),
    "application/vnd.rar": ("application/x-rar", "application/rar"),
    "application/rtf": ("text/rtf", "application/msword", "text/richtext"),
    "image/jpeg": ("image/jpg", "image/pjpeg"),
    "image/png": ("image/x-png",),
    "audio/mpeg": ("audio/mp3", "audio/x-mp3"),
    "video/mp4": ("audio/mp4", "video/quicktime", "audio/x-m4a", "video/3gpp"),
    "text/html": ("application/xhtml+xml", "text/"),
    "text/x-shellscript": ("text/", "application/x-sh"),
    "application/vnd.microsoft.portable-executable": ("application/x-ms", "application/x-dosexec"),
    "application/ms-tnef": ("application/vnd.ms-tnef",),
    "application/x-bzip2": ("application/bzip",),
    "application/x-7z-compressed": ("application/x-7z",),
    "audio/wav": ("audio/x-wav", "audio/wave"),
    "video/x-msvideo": ("video/avi", "video/msvideo"),
    "application/java-archive": ("application/x-java-archive", _ZIP, "application/x-zip"),
    "application/pdf": ("application/x-pdf",),
}  # fmt: skip


def type_of(data: bytes) -> str:
    """By what the file holds; application/octet-stream where that says nothing."""
    if not data or (data[0] not in _FIRST and data[4:8] != b"ftyp"):
        return UNKNOWN
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return _type_of_zip(data) if kind is _ZIP else kind
    if data[4:8] == b"ftyp":
        return next((kind for brand, kind in _BRANDS if data.startswith(brand, 8)), "video/mp4")
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12], UNKNOWN)
    return "text/html" if _HTML.match(data) is not None else UNKNOWN


def _type_of_zip(data: bytes) -> str:
    if (said := _MIMETYPE.match(data, 30)) is not None:
        return said[1].decode("ascii")
    for expression, kind in _ZIPPED:
        if expression.search(data, 0, _LOOK_AT) is not None:
            return kind
    return _ZIP


def is_other(declared: str, found: str) -> bool:
    """Whether the content is of another type than what was declared, and not only by another name."""
    if found in (UNKNOWN, declared):
        return False
    if found.startswith((_OFFICE, _ODF)):
        # A document with macros, a template: forms of the same.
        return not declared.startswith(("application/vnd.openxmlformats", "application/vnd.ms-", _ODF))
    if found == _ZIP and declared.startswith(("application/vnd.", "application/x-")):
        return False  # half of all formats are ZIPs
    return not declared.startswith(_FORMS.get(found, ("\n",)))
