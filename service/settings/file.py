"""A YAML file, and the environment over it → plain dicts and lists, bounded before they are built.

The environment is read by pydantic-settings: MAILBUS_NATS__SERVERS is nats.servers, MAILBUS_ACCOUNTS is JSON.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from service.settings.model import Settings
from service.settings.problems import models_of, safe_key
from service.settings.values import show_size

FILE_LIMIT_BYTES: Final = 10 * 1024 * 1024
# The settings nest 5 deep; a parser that recurses over the input must not be led deeper than its stack.
DEPTH_LIMIT: Final = 32
# 10,000 accounts with all their keys are 400,000 values.
NODE_LIMIT: Final = 1_000_000
QUOTES: Final = "an anchor (&) and an alias (*) belong together: put text that begins with & or * in quotes"
ENV_PREFIX: Final = "MAILBUS_"
ENV_DELIMITER: Final = "__"
# The C parser reads 10,000 accounts in a second; the Python one takes half a minute.
_Base: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """The file is no YAML that could be settings; the message says where and what would do."""


class _Loader(_Base):  # type: ignore[misc] # chosen at run time
    """Plain data only; a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise Unreadable(f"line {key.start_mark.line + 1}: a key must be a name")
            if key.value in seen:
                raise Unreadable(f"line {key.start_mark.line + 1}: the key {safe_key(key.value)} stands here twice")
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_undefined(self, node: yaml.Node) -> Any:
        raise Unreadable(f"line {node.start_mark.line + 1}: put text that begins with ! in quotes")


def _or_text(construct: Callable[[Any, yaml.ScalarNode], Any]) -> Callable[[Any, yaml.ScalarNode], Any]:
    """What looks like a date or a number and is none stays the text that it is, for its key's own check to name."""

    def constructed(loader: Any, node: yaml.ScalarNode) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, AttributeError, KeyError):
            return loader.construct_scalar(node)

    return constructed


_Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))
for _kind in ("timestamp", "int", "float", "bool"):
    _tag = f"tag:yaml.org,2002:{_kind}"
    _Loader.add_constructor(_tag, _or_text(_Base.yaml_constructors[_tag]))
_Loader.add_constructor(None, _Loader.construct_undefined)


@dataclass(slots=True)
class _Open:
    """A list or mapping that has begun: its anchor, the values before it, how deep it goes below."""

    anchor: str | None
    before: int
    height: int = 1


def _check_events(text: str) -> None:
    """Refuse what could grow or recurse: depth, and aliases that stand for too much. Builds nothing.

    What an alias (*) stands for counts as often as it stands there: a billion laughs end at NODE_LIMIT.
    """
    nodes = 0
    begun: list[_Open] = []
    anchored: dict[str, tuple[int, int]] = {}
    unused: dict[str, str] = {}
    for event in yaml.parse(text, Loader=_Base):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else ""
        anchor = getattr(event, "anchor", None)
        height = 0
        if isinstance(event, yaml.AliasEvent):
            if anchor not in anchored:
                raise Unreadable(f"{line}: {QUOTES}")
            count, height = anchored[anchor]
            unused.pop(anchor, None)
            nodes += count
            if nodes > NODE_LIMIT:
                raise Unreadable(f"{line}: aliases (*) that stand for more than {NODE_LIMIT} values: write them out")
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if anchor:
                anchored[anchor], unused[anchor] = (1, 0), line
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append(_Open(anchor, nodes))
            nodes += 1
            if anchor:
                unused[anchor] = line
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = begun.pop()
            height = ended.height
            if ended.anchor:
                anchored[ended.anchor] = (nodes - ended.before, height)
        else:
            continue
        if begun:
            begun[-1].height = max(begun[-1].height, height + 1)
        if len(begun) + height > DEPTH_LIMIT:
            raise Unreadable(f"{line}: nested deeper than {DEPTH_LIMIT} levels")
    for line in unused.values():
        raise Unreadable(f"{line}: {QUOTES}")


def _apart(value: Any) -> Any:
    """The same values, each its own: what an alias shares is not to be filled in twice."""
    if isinstance(value, dict):
        return {key: _apart(one) for key, one in value.items()}
    return [_apart(one) for one in value] if isinstance(value, list) else value


def read_file(path: Path) -> dict[str, Any]:
    """The content of a settings file. Raises Unreadable."""
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as exc:
        raise Unreadable(f"{path}: cannot be read: {exc.strerror or exc}") from None
    if len(content) > FILE_LIMIT_BYTES:
        raise Unreadable(f"{path}: larger than {show_size(FILE_LIMIT_BYTES)}, the most that is read")
    try:
        data = _parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise Unreadable(f"{path}: not UTF-8 at byte {exc.start}") from None
    except Unreadable as exc:
        raise Unreadable(f"{path}: {exc}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Unreadable(f"{path}: must hold keys and values, such as `nats:` and `accounts:`")
    return data


def _parse(text: str) -> Any:
    try:
        _check_events(text)
        return _apart(yaml.load(text, Loader=_Loader))  # noqa: S506 a safe loader, made stricter
    except yaml.MarkedYAMLError as exc:
        # Never the snippet that PyYAML shows: it may hold a password.
        mark = exc.problem_mark or exc.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(f"{where}no valid YAML: {exc.problem or exc.context}") from None
    except yaml.YAMLError:
        raise Unreadable("no valid YAML: it holds a character that YAML does not allow") from None


class _Environment(BaseSettings, Settings):
    """The same keys, for pydantic-settings to look for."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True
    )


class _Source(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON where it is JSON; the text otherwise, for the key's own check to accept or refuse by name."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def read_environment() -> dict[str, Any]:
    """The settings that stand in environment variables."""
    return _with_nulls(_Source(_Environment)(), Settings)


def _with_nulls(given: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A variable holds nothing but text: null is the word, as in YAML, for keys that may be null."""
    result = dict(given)
    for name, field in model.model_fields.items():
        key = field.alias or name
        value = given.get(key)
        section = next(models_of(field.annotation), None)
        if value == "null" and type(None) in get_args(field.annotation):
            result[key] = None
        elif isinstance(value, dict) and section is not None:
            result[key] = _with_nulls(value, section)
    return result


def variable_of(keys: Sequence[int | str], environment: Any) -> str | None:
    """The variable that what stands under these keys comes from; `environment`: what read_environment gave."""
    for key in keys:
        below = dict(enumerate(environment)) if isinstance(environment, list) else environment
        if not isinstance(below, dict) or key not in below:
            return None
        environment = below[key]
    found: dict[str, int] = {}
    for name in os.environ:
        sets = tuple(name.lower().removeprefix(ENV_PREFIX.lower()).split(ENV_DELIMITER))
        # A section's variable holds JSON; one for a key below it makes a section of what is none.
        if name.upper().startswith(ENV_PREFIX) and (
            sets[: len(keys)] == tuple(keys) or sets == tuple(keys[: len(sets)])
        ):
            found[name] = len(sets)
    return max(found, key=found.__getitem__) if found else None


def unknown_variables() -> list[str]:
    """Names that look like ours and mean nothing.

    Only those with `__` in them: a Kubernetes service called mailbus sets MAILBUS_PORT and more in every pod.
    """
    known = set(Settings.model_fields)
    found = []
    for name in os.environ:
        upper = name.upper()
        first, delimiter, _ = upper.removeprefix(ENV_PREFIX).partition(ENV_DELIMITER)
        if upper.startswith(ENV_PREFIX) and delimiter and first.lower() not in known:
            found.append(name)
    return sorted(found)
