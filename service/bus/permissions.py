"""Who may publish and hear what, for NATS's `authorization`. Pure. Used by `mailbus streams permissions`.

Every subject is one that the code uses; docs/operations.md shows the same for the prefix `mail`, and tests run with it.
"""

from dataclasses import dataclass
from typing import Final

from service.bus.options import StreamOptions
from service.bus.streams import wanted_streams
from service.contract import Subjects

# By itself the server takes an answer for two minutes, which is what a command has once it is begun: one that waited
# for its account before, and whoever hears 504, would go without. With the longest fleet.ttl it waits for five.
ANSWERS: Final = 'allow_responses: { max: 1, expires: "10m" }'


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects, in the order in which they are printed."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def __str__(self) -> str:
        """As the server's configuration has them."""
        listed = {"publish": self.publish, "subscribe": self.subscribe}
        lines = ["permissions {"]
        for name, subjects in listed.items():
            lines += [f"  {name}: [", *(f'    "{subject}"' for subject in subjects), "  ]"]
        return "\n".join([*lines, *([f"  {ANSWERS}"] if self.answers else []), "}"])

    @property
    def answers(self) -> bool:
        """Whether it answers requests: then it may publish to whoever asks."""
        return any(subject.startswith("$SRV.") for subject in self.subscribe)


def mailbus_permissions(subjects: Subjects) -> Permissions:
    """What mailbus itself needs."""
    p, api = subjects.prefix, "$JS.API"
    keys = (subjects.cursors, subjects.after, subjects.sends, subjects.fleet, subjects.accounts, subjects.suppressions)
    stores = (subjects.blobs, subjects.state, subjects.outbox)
    logs = (subjects.stream_in, subjects.stream_out, subjects.stream_later)
    watched = (f"KV_{subjects.fleet}", f"KV_{subjects.accounts}")
    publish = [f"{p}.{name}" for name in ("in.>", "out.*", "later.*.*", "status.>", "account.>", "dead.>", "fleet.>")]
    publish += [f"$KV.{bucket}.>" for bucket in keys] + [f"$O.{bucket}.>" for bucket in stores]
    # By name: others may have streams in the same account of NATS.
    streams = [config["name"] for config in wanted_streams(subjects, StreamOptions(), 1)]
    publish += [f"{api}.STREAM.{verb}.{stream}" for verb in ("INFO", "CREATE", "MSG.GET") for stream in streams]
    emptied = (subjects.stream_later, *(f"OBJ_{one}" for one in stores), f"KV_{subjects.suppressions}")
    publish += [f"{api}.STREAM.PURGE.{stream}" for stream in emptied]
    publish += [f"{api}.CONSUMER.CREATE.{stream}.>" for stream in (*logs, *watched)]
    publish += [f"{api}.CONSUMER.MSG.NEXT.{stream}.*" for stream in logs]
    publish += [f"{api}.CONSUMER.LIST.{subjects.stream_in}"]
    publish += [f"{api}.CONSUMER.DELETE.{stream}.*" for stream in (*logs, *watched)]
    publish += [f"$JS.ACK.{stream}.>" for stream in (subjects.stream_out, subjects.stream_later)]
    heard = [f"{p}.{name}" for name in ("bell.*", "cmd.>", "fleet.>", "admin.>")]
    return Permissions(tuple(publish), ("_INBOX.>", *heard, "$SRV.>"))


def reader_permissions(subjects: Subjects, name: str) -> Permissions:
    """Of who reads events, statuses and blobs, by durable consumers of this name that an operator made."""
    publish = [
        subject
        for stream in (subjects.stream_in, subjects.stream_status)
        for subject in (
            f"$JS.API.CONSUMER.INFO.{stream}.{name}",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}",
            f"$JS.ACK.{stream}.{name}.>",
        )
    ]
    return Permissions((*publish, f"$JS.API.STREAM.MSG.GET.OBJ_{subjects.blobs}"), (f"_INBOX_{name}.>",))


def requester_permissions(subjects: Subjects, name: str, account: str) -> Permissions:
    """Of who sends from an account, with attachments that fit into a message of NATS."""
    publish = (subjects.cmd(account, "send"), subjects.cmd(account, "upload"), subjects.out(account))
    return Permissions(publish, (f"_INBOX_{name}.>",))


def uploader_permissions(subjects: Subjects, name: str) -> Permissions:
    """Of who stores files of any size, and so could overwrite any blob, or empty the bucket by one header."""
    store = subjects.blobs
    publish = (f"$O.{store}.>", f"$JS.API.STREAM.INFO.OBJ_{store}", f"$JS.API.STREAM.MSG.GET.OBJ_{store}")
    return Permissions(publish, (f"_INBOX_{name}.>",))
