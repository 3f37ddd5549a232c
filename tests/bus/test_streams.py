"""Streams and buckets: made if missing, checked if present, never changed. Real server."""

from datetime import timedelta
from typing import Any

import pytest

from service.bus import Bus, StreamOptions
from service.bus.errors import ApiError, js_api
from service.bus.streams import PERIOD_S, create_verdict, drifts, wanted_streams
from service.contract import Subjects
from service.errors import Permanent, Transient
from tests.bus.conftest import opened, stream_config
from tests.servers.nats import NatsServer

NS = 1_000_000_000
IN = wanted_streams(Subjects("mail"), StreamOptions(), 1)[0]


async def test_everything_is_made_if_missing_and_found_right_by_the_next_start(
    bus: Bus, nats_server: NatsServer
) -> None:
    names = {config["name"] for config in wanted_streams(bus.subjects, StreamOptions(), 1)}
    listed = await js_api(bus.nc, "STREAM.NAMES", {"subject": f"{bus.subjects.prefix}.>"})
    assert set(listed["streams"]) == {name for name in names if not name.startswith(("KV_", "OBJ_"))}
    for name in names:
        assert (await stream_config(bus, name))["name"] == name
    async with opened(nats_server.url, bus.subjects.prefix):
        pass


@pytest.mark.fault("D18")
@pytest.mark.parametrize(
    ("change", "field", "mend"),
    [
        ({"allow_atomic": False}, "allow_atomic", " --allow-batch)"),
        ({"max_age": 3600 * NS}, "max_age", "--max-age=2592000s"),
        ({"subjects": ["PREFIX.in.*.*.received"]}, "subjects", "--subjects=PREFIX.in.>"),
        ({"allow_atomic": False, "persist_mode": "async"}, "persist_mode", "make it anew"),
        ({"storage": "memory"}, "storage", "make it anew"),
        ({"retention": "interest"}, "retention", "make it anew"),
        ({"max_msg_size": 1000}, "max_msg_size", "--max-msg-size=-1"),
        ({"max_msgs_per_subject": 9}, "max_msgs_per_subject", "--max-msgs-per-subject=-1"),
        ({"allow_rollup_hdrs": True}, "allow_rollup_hdrs", " --no-allow-rollup)"),
        ({"allow_msg_ttl": True}, "allow_msg_ttl", "make it anew"),
        ({"duplicate_window": 10 * NS}, "duplicate_window", "--dupe-window=120s"),
    ],
)
async def test_a_difference_that_matters_is_refused_with_its_field_and_the_command_that_mends_it(
    bus: Bus, nats_server: NatsServer, change: dict[str, Any], field: str, mend: str
) -> None:
    prefix = bus.subjects.prefix
    name = bus.subjects.stream_in
    config = await stream_config(bus, name)
    if "subjects" in change:
        change = {"subjects": [subject.replace("PREFIX", prefix) for subject in change["subjects"]]}
    await js_api(bus.nc, f"STREAM.DELETE.{name}")
    await js_api(bus.nc, f"STREAM.CREATE.{name}", config | change)
    with pytest.raises(Permanent) as refused:
        async with opened(nats_server.url, prefix):
            pass
    assert f"{name}.{field} is" in str(refused.value)
    assert mend.replace("PREFIX", prefix) in str(refused.value)
    assert (await stream_config(bus, name)).get(field, False) == change[field], "an existing stream was changed"


async def test_all_differences_are_listed_at_once(bus: Bus, nats_server: NatsServer) -> None:
    for name in (bus.subjects.stream_status, bus.subjects.stream_dead):
        config = await stream_config(bus, name)
        await js_api(bus.nc, f"STREAM.UPDATE.{name}", config | {"max_age": 3600 * NS})
    with pytest.raises(Permanent) as refused:
        async with opened(nats_server.url, bus.subjects.prefix):
            pass
    assert f"{bus.subjects.stream_status}.max_age" in str(refused.value)
    assert f"{bus.subjects.stream_dead}.max_age" in str(refused.value)


@pytest.mark.fault("D18")
async def test_a_stream_name_taken_by_another_is_permanent(nats_server: NatsServer, bus: Bus, prefix: str) -> None:
    other = f"{prefix}x"
    await js_api(bus.nc, "STREAM.CREATE.FOREIGN", {"name": "FOREIGN", "subjects": [f"{other}.in.>"]})
    try:
        with pytest.raises(Permanent, match="would not make stream") as refused:
            async with opened(nats_server.url, other):
                pass
        assert "subjects overlap" in str(refused.value)
        assert f"nats stream ls --subject '{other}.in.>'" in str(refused.value)
    finally:
        await js_api(bus.nc, "STREAM.DELETE.FOREIGN")


@pytest.mark.parametrize(
    ("code", "err_code", "said"),
    [
        (400, 10005, "no suitable peers for placement, peer offline"),
        (400, 10202, "cluster member change is in progress"),
        (500, 10009, "JetStream cluster can not handle request"),
        (503, 10008, "JetStream system temporarily unavailable"),
    ],
)
def test_a_cluster_that_is_still_forming_is_waited_for(code: int, err_code: int, said: str) -> None:
    verdict = create_verdict(IN | {"num_replicas": 3}, ApiError(code, err_code, said))
    assert isinstance(verdict, Transient)
    assert said in str(verdict)
    assert "nats.replicas is 3" in str(verdict)


async def test_more_replicas_than_a_server_without_a_cluster_can_have_are_permanent(
    nats_server: NatsServer, prefix: str
) -> None:
    with pytest.raises(Permanent, match=r"change nats\.prefix, nats\.replicas"):
        async with opened(nats_server.url, f"{prefix}x", replicas=3):
            pass


@pytest.mark.parametrize(
    ("found", "fields"),
    [
        ({}, []),
        ({"description": "ours", "max_bytes": 10**9}, []),
        ({"num_replicas": 3}, []),
        ({"num_replicas": 0, "discard": "new"}, ["discard"]),
        ({"persist_mode": "default"}, []),
        ({"persist_mode": "async"}, ["persist_mode"]),
        ({"allow_msg_schedules": True, "allow_rollup_hdrs": True}, ["allow_msg_schedules", "allow_rollup_hdrs"]),
        ({"republish": {"src": ">", "dest": "x.>"}}, ["republish"]),
        ({"no_ack": True}, ["no_ack"]),
        ({"sealed": True}, ["sealed"]),
        ({"max_msgs": 10**6, "duplicate_window": 300 * NS}, []),
        ({"allow_msg_ttl": True, "subject_delete_marker_ttl": NS}, ["allow_msg_ttl", "subject_delete_marker_ttl"]),
        ({"deny_delete": True, "deny_purge": True}, ["deny_delete", "deny_purge"]),
        ({"mirror": {"name": "OTHER"}, "sources": [{"name": "OTHER"}]}, ["mirror", "sources"]),
        ({"subject_transform": {"src": ">", "dest": "x.>"}}, ["subject_transform"]),
        ({"sources": [], "consumer_limits": {}}, []),
    ],
)
@pytest.mark.fault("D18")
def test_what_matters(found: dict[str, Any], fields: list[str]) -> None:
    assert [drift.field for drift in drifts(IN | found, IN)] == fields


@pytest.mark.parametrize(
    ("stream", "found", "fields"),
    [
        # A killed process would be missed too late, or never.
        ("KV_mail-fleet", {"max_age": 0}, ["max_age"]),
        ("KV_mail-fleet", {"max_age": 3600 * NS}, ["max_age"]),
        ("KV_mail-fleet", {"subject_delete_marker_ttl": 0}, ["subject_delete_marker_ttl"]),
        ("KV_mail-fleet", {"subject_delete_marker_ttl": 60 * NS, "deny_delete": False}, []),
        # A request that waits would make room for another.
        ("MAIL_LATER", {"max_bytes": 10**9, "max_msgs": 1000}, ["max_msgs", "max_bytes"]),
        ("MAIL_OUT", {"max_bytes": 10**9, "max_msgs": 1000}, []),
        ("KV_mail-sends", {"max_age": 0, "duplicate_window": NS, "subject_delete_marker_ttl": NS}, []),
        ("KV_mail-sends", {"discard_new_per_subject": True}, ["discard_new_per_subject"]),
        ("KV_mail-cursors", {"max_age": 3600 * NS}, ["max_age"]),
        ("OBJ_mail-blobs", {"max_age": 3600 * NS, "deny_purge": True}, ["max_age", "deny_purge"]),
    ],
)
@pytest.mark.fault("D18")
def test_what_matters_of_each(stream: str, found: dict[str, Any], fields: list[str]) -> None:
    by_name = {config["name"]: config for config in wanted_streams(Subjects("mail"), StreamOptions(), 1)}
    assert [drift.field for drift in drifts(by_name[stream] | found, by_name[stream])] == fields


async def test_a_bucket_for_presence_whose_keys_never_end_is_refused_with_what_mends_it(
    bus: Bus, nats_server: NatsServer
) -> None:
    name = f"KV_{bus.subjects.fleet}"
    config = await stream_config(bus, name)
    await js_api(bus.nc, f"STREAM.DELETE.{name}")
    plain = {key: value for key, value in config.items() if key != "subject_delete_marker_ttl"}
    await js_api(bus.nc, f"STREAM.CREATE.{name}", plain | {"max_age": 0})
    with pytest.raises(Permanent) as refused:
        async with opened(nats_server.url, bus.subjects.prefix):
            pass
    for mend in ("--max-age=10s", "--subject-del-markers-ttl=10s"):
        assert f"nats stream edit {name} {mend}" in str(refused.value)


async def test_the_command_that_is_shown_for_a_shorter_time_is_one_that_the_server_takes(
    bus: Bus, nats_server: NatsServer
) -> None:
    shorter = StreamOptions(presence_ttl_s=5)
    with pytest.raises(Permanent) as refused:
        async with opened(nats_server.url, bus.subjects.prefix, streams=shorter):
            pass
    name = f"KV_{bus.subjects.fleet}"
    assert f"nats stream edit {name} --max-age=5s --dupe-window=5s" in str(refused.value)
    config = await stream_config(bus, name)
    with pytest.raises(ApiError, match="duplicates window"):
        await js_api(bus.nc, f"STREAM.UPDATE.{name}", config | {"max_age": 5 * NS})
    both = {"max_age": 5 * NS, "duplicate_window": 5 * NS, "subject_delete_marker_ttl": 5 * NS}
    await js_api(bus.nc, f"STREAM.UPDATE.{name}", config | both)
    async with opened(nats_server.url, bus.subjects.prefix, streams=shorter):
        pass


def test_the_queue_takes_no_schedules_and_no_rollup() -> None:
    out = wanted_streams(Subjects("mail"), StreamOptions(), 1)[1]
    for name in ("allow_rollup_hdrs", "allow_msg_schedules", "allow_msg_ttl", "allow_atomic"):
        assert not out.get(name)


@pytest.mark.fault("G08")
@pytest.mark.parametrize("header", ["Nats-Schedule", "Nats-Rollup", "Nats-TTL"])
async def test_a_requester_cannot_wipe_the_queue_with_a_header(bus: Bus, header: str) -> None:
    await bus.publish(bus.subjects.out("a"), b"kept")
    value = {"Nats-Schedule": "@every 1s", "Nats-Rollup": "all", "Nats-TTL": "1s"}[header]
    reply = await bus.nc.request(bus.subjects.out("b"), b"bad", headers={header: value}, timeout=5)
    assert b'"error"' in reply.data
    assert await bus.pending(bus.subjects.stream_out, bus.subjects.out("*")) == 1


async def test_bodies_that_no_message_could_hold_are_refused_at_the_start(own_nats: NatsServer, prefix: str) -> None:
    own_nats.config["max_payload"] = 200 * 1024
    await own_nats.restart()
    async with opened(own_nats.url, prefix, streams=StreamOptions(inline_bytes=184 * 1024)) as bus:
        too_large = StreamOptions(inline_bytes=256 * 1024)
        with pytest.raises(Permanent, match="inline"):
            await bus.check_streams(too_large, 1)
    with pytest.raises(Permanent) as refused:
        async with opened(own_nats.url, prefix, streams=too_large):
            pass
    assert "limits.inline is 262144 bytes" in refused.value.what
    assert "204800" in refused.value.what
    assert "184KiB" in refused.value.remedy
    assert "max_payload" in refused.value.remedy


@pytest.mark.fault("D10")
@pytest.mark.parametrize("retention_s", [86400.0, 30 * 86400.0])
def test_a_blob_outlives_every_event_that_names_it(retention_s: float) -> None:
    options = StreamOptions(in_max_age_s=retention_s)
    by_name = {config["name"]: config for config in wanted_streams(Subjects("mail"), options, 1)}
    assert by_name["MAIL_IN"]["max_age"] == retention_s * NS
    assert by_name["OBJ_mail-blobs"]["max_age"] >= (retention_s + PERIOD_S) * NS
    assert timedelta(days=31).total_seconds() <= PERIOD_S


@pytest.mark.fault("D10")
def test_unlimited_retention_means_no_time_to_live() -> None:
    options = StreamOptions(in_max_age_s=None)
    by_name = {config["name"]: config for config in wanted_streams(Subjects("mail"), options, 1)}
    assert by_name["MAIL_IN"]["max_age"] == by_name["OBJ_mail-blobs"]["max_age"] == 0
