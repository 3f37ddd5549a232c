"""The streams and buckets mailbus needs: made if missing, checked if present, never silently changed.

Used by connection.py at start. Why two streams for sending: docs/decisions/0005-queue-and-schedules.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client

from service.bus.errors import NOT_FOUND, ApiError, js_api, translated
from service.bus.options import StreamOptions
from service.contract import ENVELOPE_ROOM_BYTES, Subjects
from service.errors import Inward, Permanent
from service.observe import log, step

Config = dict[str, Any]
NS: Final = 1_000_000_000
# A blob's name holds its month: within it, equal content is one object.
PERIOD_S: Final = 31 * 86400
DUPLICATE_WINDOW_S: Final = 120
# A difference in these changes what mailbus can promise; anything else is the operator's own affair.
MATTERS: Final = (
    "retention",
    "subjects",
    "discard",
    "storage",
    "allow_atomic",
    "allow_msg_schedules",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
    "max_age",
    "max_msgs",
    "max_bytes",
    "max_msgs_per_subject",
    "max_msg_size",
    "discard_new_per_subject",
    "duplicate_window",
    "num_replicas",
    "republish",
    "persist_mode",
    "no_ack",
    "sealed",
    "deny_delete",
    "deny_purge",
    "mirror",
    "sources",
    "subject_transform",
    "allow_msg_counter",
)
ABSENT: Final[Config] = {
    "discard": "old",
    "allow_atomic": False,
    "allow_msg_schedules": False,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "subject_delete_marker_ttl": 0,
    "max_age": 0,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "discard_new_per_subject": False,
    "duplicate_window": 0,
    "num_replicas": 1,
    "republish": None,
    "persist_mode": "",
    "no_ack": False,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
    "allow_msg_counter": False,
    "storage": "file",
}
FLAGS: Final = {
    "max_age": "--max-age",
    "discard": "--discard",
    "num_replicas": "--replicas",
    "subjects": "--subjects",
    "allow_atomic": "--allow-batch",
    "allow_msg_schedules": "--allow-schedules",
    "allow_msg_ttl": "--allow-msg-ttl",
    "allow_rollup_hdrs": "--allow-rollup",
    "subject_delete_marker_ttl": "--subject-del-markers-ttl",
    "max_msgs": "--max-msgs",
    "max_bytes": "--max-bytes",
    "max_msg_size": "--max-msg-size",
    "max_msgs_per_subject": "--max-msgs-per-subject",
    "duplicate_window": "--dupe-window",
}
# NATS switches them on for a stream that is there, and never off.
ONE_WAY: Final = frozenset({"allow_msg_schedules", "allow_msg_ttl"})
# What a cluster says that is still forming, or whose servers come and go: time mends it (errors.json of nats-server).
# JSClusterIncomplete, NoPeers, NotAvail, NotLeader, JSPeerRemap, JSClusterServerMemberChangeInflight.
FORMING: Final = frozenset({10004, 10005, 10008, 10009, 10040, 10202})
# JSStreamSubjectOverlapErr.
OVERLAP: Final = 10065
DURATIONS: Final = ("max_age", "subject_delete_marker_ttl", "duplicate_window")


def _age(seconds: float | None) -> int:
    return int(seconds * NS) if seconds else 0


def wanted_streams(subjects: Subjects, options: StreamOptions, replicas: int) -> list[Config]:
    """Every stream as JetStream's API takes it, the ones behind buckets too."""
    p = subjects.prefix
    # The bell rings with the headers of what was queued, so that no consumer must wait for it.
    bell = {"dest": f"{p}.bell.{{{{wildcard(1)}}}}", "headers_only": True}
    common: Config = {"storage": "file", "num_replicas": replicas, "discard": "old"}
    streams: list[Config] = [
        {
            "name": subjects.stream_in,
            "subjects": [f"{p}.in.>"],
            "retention": "limits",
            "allow_atomic": True,
            "max_age": _age(options.in_max_age_s),
            "max_consumers": options.max_consumers,
        },
        {
            "name": subjects.stream_out,
            "subjects": [f"{p}.out.*"],
            "retention": "workqueue",
            "discard": "new",
            "max_consumers": options.max_consumers,
            "republish": {"src": f"{p}.out.*", **bell},
        },
        {
            "name": subjects.stream_later,
            "subjects": [f"{p}.later.*.*", f"{p}.due.*"],
            "retention": "workqueue",
            "allow_msg_schedules": True,
            # The server needs both for schedules; mailbus alone may publish here.
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "max_consumers": options.max_consumers,
            "republish": {"src": f"{p}.due.*", **bell},
        },
        {
            "name": subjects.stream_status,
            "subjects": [f"{p}.status.>", f"{p}.account.>"],
            "retention": "limits",
            "max_age": _age(options.status_max_age_s),
        },
        {
            "name": subjects.stream_dead,
            "subjects": [f"{p}.dead.>"],
            "retention": "limits",
            "max_age": _age(options.dead_max_age_s),
        },
        _object_store(subjects.blobs, options.in_max_age_s + PERIOD_S if options.in_max_age_s else None),
        # No request is remembered longer, and chunks that a killed process left without a meta go with it.
        _object_store(subjects.outbox, options.sends_window_s + PERIOD_S if options.sends_window_s else None),
        # Named by cursors, which are kept for ever.
        _object_store(subjects.state, None),
        _key_value(subjects.cursors),
        _key_value(subjects.after),
        _key_value(subjects.accounts),
        _key_value(subjects.sends, ttl_s=options.sends_window_s),
        _key_value(subjects.suppressions),
        _key_value(subjects.fleet, ttl_s=options.presence_ttl_s, markers=True),
    ]
    return [common | {"duplicate_window": _window(stream.get("max_age", 0))} | stream for stream in streams]


def _window(max_age: int) -> int:
    """For how long an id is known: what is stored twice after a lost answer is one within it."""
    return min(max_age or DUPLICATE_WINDOW_S * NS, DUPLICATE_WINDOW_S * NS)


def _object_store(bucket: str, ttl_s: float | None) -> Config:
    return {
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "retention": "limits",
        "discard": "new",
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "max_age": _age(ttl_s),
    }


def _key_value(bucket: str, *, ttl_s: float | None = None, markers: bool = False) -> Config:
    config: Config = {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "max_age": _age(ttl_s),
    }
    if markers:
        # Without markers a key that expires vanishes with no event for a watcher.
        config |= {"allow_msg_ttl": True, "subject_delete_marker_ttl": max(NS, _age(ttl_s))}
    return config


@dataclass(frozen=True, slots=True)
class Drift:
    """One field of a stream that is not as mailbus needs it."""

    stream: str
    field: str
    found: object
    wanted: object
    # What must change in the same command, or the server refuses it: field → value.
    also: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        flags = " ".join(_flag(field, value) for field, value in ((self.field, self.wanted), *self.also))
        can_be_mended = self.field in FLAGS and (self.field not in ONE_WAY or self.wanted)
        mend = f"nats stream edit {self.stream} {flags}" if can_be_mended else "make it anew"
        return f"{self.stream}.{self.field} is {self.found!r}, wanted {self.wanted!r} ({mend})"


def _flag(field: str, value: object) -> str:
    name = FLAGS.get(field, "")
    if isinstance(value, bool):
        # `nats` refuses a value behind a switch.
        return name if value else f"--no-{name.removeprefix('--')}"
    if field in DURATIONS and isinstance(value, int):
        value = f"{value // NS}s" if value % NS == 0 else f"{value // 1_000_000}ms"
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"


def drifts(found: Config, wanted: Config) -> list[Drift]:
    """What differs and matters. Pure."""
    differing: list[Drift] = []
    for field in MATTERS:
        absent = ABSENT.get(field)
        there, want = found.get(field) or absent, wanted.get(field) or absent
        if field == "republish":
            there, want = _republish(there), _republish(want)
        if field == "subjects" and isinstance(there, list) and isinstance(want, list):
            there, want = sorted(there), sorted(want)
        if there != want and not _harmless(field, there, want, wanted):
            differing.append(Drift(str(wanted["name"]), field, there, want, _also(field, found, wanted)))
    return differing


def _also(field: str, found: Config, wanted: Config) -> tuple[tuple[str, object], ...]:
    """A window for duplicates may not be longer than what the stream keeps."""
    window, age = found.get("duplicate_window") or 0, wanted.get("max_age") or 0
    return (("duplicate_window", wanted["duplicate_window"]),) if field == "max_age" and window > age > 0 else ()


def _harmless(field: str, there: object, want: object, wanted: Config) -> bool:
    """Whether a field that differs makes no difference to what mailbus can promise."""
    bucket = _is_bucket(wanted)
    # Keys that must expire, and be missed by whoever watches: the dead are found by it.
    expires = bool(wanted.get("subject_delete_marker_ttl"))
    match field:
        case "num_replicas":
            return _at_least(there, want)  # more are only safer
        case "allow_atomic":
            return bucket  # takes no batches, and need not refuse them
        case "max_age":
            # What lives longer in a bucket than it must is only safer: the settings say the least.
            return bucket and not expires and (not there or _at_least(there, want))
        case "subject_delete_marker_ttl":
            # Among events a marker would be an event of nobody's; watches of a bucket know them.
            return bucket and bool(there)
        case "max_msgs" | "max_bytes":
            # Others refuse what is too much, or keep events for as long as there is room. What waits must not go.
            return (str(wanted["retention"]), str(wanted["discard"])) != ("workqueue", "old")
        case "duplicate_window":
            return bucket or _at_least(there, want)  # keys are written by compare-and-set
        case "persist_mode":
            return there != "async"  # it is what makes the log forget
        case "deny_delete":
            return not there
        case _:
            return False


def _at_least(there: object, want: object) -> bool:
    return isinstance(there, int) and isinstance(want, int) and 0 < want <= there


def _is_bucket(config: Config) -> bool:
    return str(config["name"]).startswith(("OBJ_", "KV_"))


def _republish(value: object) -> object:
    if not isinstance(value, dict):
        return None
    return (value.get("src"), value.get("dest"), bool(value.get("headers_only")))


async def check_streams(nc: Client, subjects: Subjects, options: StreamOptions, replicas: int) -> list[str]:
    """Check what is there and make nothing; gives the streams that are missing.

    Raises Permanent that lists every difference, or Transient.
    """
    _check_payload(nc, options)
    found = await _survey(nc, wanted_streams(subjects, options, replicas))
    _raise_drifts(found.drifts)
    if found.missing and replicas > 1 and not nc._server_info.get("cluster"):  # nats-py has no public name for it
        raise Permanent(
            f"nats.replicas is {replicas}, and NATS is one server, which keeps no replicas",
            where="NATS",
            remedy="set nats.replicas: 1, or connect to a cluster",
        )
    return [config["name"] for config in found.missing]


async def ensure_streams(nc: Client, subjects: Subjects, options: StreamOptions, replicas: int) -> None:
    """Make what is missing, check what is there. Raises Permanent that lists every difference, or Transient."""
    _check_payload(nc, options)
    found = await _survey(nc, wanted_streams(subjects, options, replicas))
    for config in found.missing:
        with translated(f"stream {config['name']}"):
            step("stream.before")
            await _create(nc, config)
            step("stream.done")
    _raise_drifts(found.drifts)


def _check_payload(nc: Client, options: StreamOptions) -> None:
    """Bodies of the size that settings allow fit into a message. Raises Permanent."""
    room = int(nc.max_payload) - ENVELOPE_ROOM_BYTES
    if options.inline_bytes > room:
        raise Permanent(
            f"limits.inline is {options.inline_bytes} bytes, and NATS takes {nc.max_payload} in a message",
            where="NATS",
            remedy=f"lower limits.inline to {max(0, room) // 1024}KiB, or raise max_payload of the NATS server",
        )


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the server has of the streams that are wanted."""

    missing: list[Config]
    drifts: list[Drift]


async def _survey(nc: Client, configs: Iterable[Config]) -> _Survey:
    found = _Survey([], [])
    for config in configs:
        name = config["name"]
        with translated(f"stream {name}"):
            try:
                info = await js_api(nc, f"STREAM.INFO.{name}")
            except ApiError as exc:
                if exc.code != NOT_FOUND:
                    raise
                found.missing.append(config)
            else:
                found.drifts.extend(drifts(info["config"], config))
    return found


def _raise_drifts(found: list[Drift]) -> None:
    if found:
        raise Permanent(
            "existing streams are not as mailbus needs them: " + "; ".join(str(drift) for drift in found),
            where="NATS",
            remedy="mend them as shown, or change the settings; mailbus never changes a stream that is there",
        )


async def _create(nc: Client, config: Config) -> None:
    name = config["name"]
    try:
        info = await js_api(nc, f"STREAM.CREATE.{name}", config)
    except ApiError as exc:
        raise create_verdict(config, exc) from exc
    log.info("stream_made", stream=name, replicas=info["config"].get("num_replicas"))


def create_verdict(config: Config, refused: ApiError) -> Exception:
    """What a stream that was not made means: Permanent, Transient, or the error itself, which is tried again. Pure."""
    what = f"NATS would not make stream {config['name']}: {refused.description} ({refused.err_code})"
    if refused.err_code in FORMING:
        return Inward(
            what,
            where="NATS",
            remedy=f"tried again; if it stays: nats.replicas is {config['num_replicas']}, are as many servers there?",
        )
    # Names in use with another configuration, subjects that overlap, replicas without a cluster: no retry mends it.
    if refused.err_code == OVERLAP:
        look = "; ".join(f"nats stream ls --subject '{subject}'" for subject in config["subjects"])
        return Permanent(what, where="NATS", remedy=f"see whose they are ({look}), change them there, or nats.prefix")
    if refused.code in (400, 500):
        remedy = "make it by hand, or change nats.prefix, nats.replicas or the server's limits"
        return Permanent(what, where="NATS", remedy=remedy)
    return refused
