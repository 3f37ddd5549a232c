"""Raw bytes → the tree of parts, as offsets. Pure, one pass, no recursion, never raises. RFC 2046 section 5.1.

The pass looks for the text that all open boundaries have in common, so a mail costs one `bytes.find` over its
length whatever its depth; each line found is then looked up among the open boundaries. An outer boundary ends
everything inside it, closed or not.
"""

from typing import Final

from service.mime.header import Header, HeaderEnd, find_end, first_junk, parse_header
from service.mime.limits import Cut, MimeLimits
from service.mime.params import Parameters, parse_content_type, parse_disposition

_NO_PARAMETERS: Final = Parameters("", {})
OCTET_STREAM: Final = "application/octet-stream"


class Node:
    """One part: its header, what that says, where its body lies, and its children by index."""

    def __init__(
        self, header: Header, type: str, content_type: Parameters, disposition: Parameters, start: int, end: int
    ) -> None:
        self.header = header
        self.type = type
        self.content_type = content_type
        self.disposition = disposition
        self.start = start
        self.end = end
        self.children: list[int] = []
        self.is_multipart = False
        self.opaque = False  # the rest of a mail beyond a limit: its bytes are given as they are


class Tree:
    """All parts in document order, the root first."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.cuts: dict[Cut, None] = {}
        # What was not as RFC 2046 has it and may be read otherwise elsewhere; None where all was well.
        self.defect: str | None = None
        self.junk = False


class _Open:
    """A multipart; `common`: what its boundary and those of all round it begin with."""

    def __init__(self, node: int, boundary: bytes, common: bytes) -> None:
        self.node = node
        self.boundary = boundary
        self.common = common


class _Line:
    """A boundary: the line break before it, the one after it, and whose it is."""

    def __init__(self, start: int, end: int, index: int, *, last: bool) -> None:
        self.start = start
        self.end = end
        self.index = index
        self.last = last


def split(raw: bytes, root: Header, body: int, limits: MimeLimits, *, most: int) -> Tree:
    """At most `most` parts of a message whose header is `root` and whose body begins at `body`."""
    splitter = _Splitter(raw, limits, most)
    splitter.add(root, body, "text/plain")
    splitter.run(body)
    return splitter.tree


class _Splitter:
    def __init__(self, raw: bytes, limits: MimeLimits, most: int) -> None:
        self.raw = raw
        self.most = most
        self.limits = limits
        self.tree = Tree()
        self.open: list[_Open] = []
        self.by_boundary: dict[bytes, int] = {}
        self.needle = b""
        self.misses = 0
        # The next empty line: parts that have none would each search the rest of the mail for it.
        self.blank = HeaderEnd(0, 0)
        self.leaf: Node | None = None

    def add(self, header: Header, body: int, default: str) -> Node:
        """A node for a header; a multipart is opened, anything else is the leaf that is being read."""
        values = header.values
        raw_type, raw_disposition = values.get("content-type"), values.get("content-disposition")
        content_type = parse_content_type(raw_type) if raw_type is not None else _NO_PARAMETERS
        disposition = parse_disposition(raw_disposition) if raw_disposition is not None else _NO_PARAMETERS
        # RFC 2045 5.2: without a type, or with a broken one, it is plain text.
        node = Node(header, content_type.value or default, content_type, disposition, body, len(self.raw))
        tree = self.tree
        tree.nodes.append(node)
        if header.junk:
            tree.junk = True
        if header.twice:
            tree.defect = tree.defect or "a part with two different Content fields of one name"
        if header.cut:
            tree.cuts[Cut.HEADERS] = None
        self.leaf = node
        if node.type.startswith("multipart/"):
            self._open_multipart(node, len(tree.nodes) - 1)
        return node

    def _open_multipart(self, node: Node, index: int) -> None:
        # RFC 2046 5.1.1: no boundary ends with white space.
        boundary = node.content_type.params.get("boundary", "").rstrip().encode("utf-8", "replace")
        if not boundary or boundary in self.by_boundary:
            self._plain(node, "multipart without a boundary of its own")
            return
        if len(self.open) >= self.limits.depth:
            self._cut(node, Cut.DEPTH)
            return
        node.is_multipart = True
        self.by_boundary[boundary] = len(self.open)
        # Told once: to compare all open boundaries at each new one took seconds where they are long and alike.
        common = _common_start(self.open[-1].common, boundary) if self.open else boundary
        self.open.append(_Open(index, boundary, common))
        self.leaf = None
        self._aim()

    def _plain(self, node: Node, why: str) -> None:
        """A multipart that cannot be taken apart is shown as the text that it is."""
        self.tree.defect = self.tree.defect or why
        node.type = "text/plain"
        node.is_multipart = False

    def _cut(self, node: Node, what: Cut) -> None:
        self.tree.cuts[what] = None
        node.type, node.is_multipart, node.opaque = OCTET_STREAM, False, True

    def _aim(self) -> None:
        self.needle = b"\n--" + self.open[-1].common

    def run(self, body: int) -> None:
        # The line end before a boundary belongs to it; the header's own last one will do for the first.
        at = max(body - 1, 0)
        while self.open and at >= 0:
            line = self._next_boundary(at, len(self.raw))
            if line is None:
                break
            self._close_to(line.index, line.start, last=line.last)
            at = line.end if line.last else self._begin(line.index, line.end + 1)
        self._end(len(self.raw))

    def _next_boundary(self, at: int, end: int) -> _Line | None:
        """The first line from `at` on that is a boundary of an open multipart."""
        raw, known = self.raw, self.by_boundary
        while self.misses <= self.limits.boundary_misses:
            start = raw.find(self.needle, at, end)
            if start < 0:
                return None
            stop = raw.find(b"\n", start + 1, end)
            stop = end if stop < 0 else stop
            # A line longer than any open boundary with its dashes is none, and is not copied.
            text = raw[start + 3 : min(stop, start + 40_000)].rstrip()
            if (index := known.get(text)) is not None:
                return _Line(start, stop, index, last=False)
            if text.endswith(b"--") and (index := known.get(text[:-2].rstrip())) is not None:
                return _Line(start, stop, index, last=True)
            self.misses += 1
            at = stop
        self.tree.cuts[Cut.PARTS] = None
        return None

    def _is_boundary(self, start: int) -> bool:
        if not self.raw.startswith(self.needle[1:], start):
            return False
        line = self._next_boundary(start - 1, len(self.raw))
        return line is not None and line.start == start - 1

    def _close_to(self, index: int, hit: int, *, last: bool) -> None:
        """The parts inside open[index] end before the line break at `hit`."""
        end = hit - 1 if hit and self.raw[hit - 1] == 13 else hit
        self._end_leaf(end)
        keep = index if last else index + 1
        if len(self.open) > keep:
            for entry in self.open[keep:]:
                self._end_multipart(self.tree.nodes[entry.node], end)
                del self.by_boundary[entry.boundary]
            del self.open[keep:]
            if self.open:
                self._aim()

    def _end_leaf(self, end: int) -> None:
        if self.leaf is not None:
            # An empty body: its boundary line begins where the body would.
            self.leaf.end = max(end, self.leaf.start)
            self.leaf = None

    def _end_multipart(self, node: Node, end: int) -> None:
        node.end = max(end, node.start)
        if not node.children and self.raw[node.start : node.start + 65536].strip():
            self._plain(node, "multipart whose boundary never comes")

    def _begin(self, index: int, start: int) -> int:
        """A new part of open[index] whose header begins at `start`: where to search on, -1 when no more is wanted."""
        raw, tree = self.raw, self.tree
        if start >= len(raw) or self._is_boundary(start):
            self.misses += 1  # as many as one likes of these cost nothing else
            return start - 1  # a boundary with nothing at all after it begins no part
        parent = tree.nodes[self.open[index].node]
        if len(tree.nodes) >= self.most:
            # The rest of the mail, this part's header included, is one blob.
            node = Node(Header(), OCTET_STREAM, _NO_PARAMETERS, _NO_PARAMETERS, start, len(raw))
            node.opaque = True
            parent.children.append(len(tree.nodes))
            tree.nodes.append(node)
            tree.cuts[Cut.PARTS] = None
            return -1
        if start >= self.blank.header:
            self.blank = find_end(raw, start, len(raw))
        header_end, body = self.blank.header, self.blank.body
        # A boundary within what looks like a header ends the part before its body begins.
        inside = self._next_boundary(max(start - 1, 0), header_end)
        if inside is not None:
            header_end = body = inside.start + 1
        header = parse_header(raw[start:header_end], self.limits)
        if header.junk and (not header.fields or body == header_end):
            # The empty line is missing, or the whole header is: the body begins where the fields end.
            body = start + first_junk(raw[start:header_end])
            header = parse_header(raw[start:body], self.limits)
            header.junk = True
        parent.children.append(len(tree.nodes))
        # RFC 2046 5.1.5: in a digest the default is a message.
        self.add(header, body, "message/rfc822" if parent.type == "multipart/digest" else "text/plain")
        return max(body - 1, 0)

    def _end(self, end: int) -> None:
        self._end_leaf(end)
        for entry in self.open:
            self._end_multipart(self.tree.nodes[entry.node], end)
        self.open.clear()


def _common_start(one: bytes, other: bytes) -> bytes:
    """The bytes with which both begin."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:at]
    return one if len(one) < len(other) else other
