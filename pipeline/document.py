"""A YAML file as plain data that knows the line of every key: no anchors, no tags, no key twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken

from pipeline.errors import Fault
from pipeline.fields import Place

_NOT_PLAIN = {
    AnchorToken: "an anchor",
    AliasToken: "an alias",
    TagToken: "a tag",
    DirectiveToken: "a directive",
}


@dataclass
class Document:
    """Mappings, tuples and scalars; None where the file is no mapping at all."""

    file: Path
    data: dict[str, Any] | None = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    """Faults of the layout: what is wrong before any key is looked at."""

    def part(self, *place: str) -> Any:
        """What stands at a place; None where nothing does."""
        part: Any = self.data
        for key in place:
            part = part.get(key) if isinstance(part, dict) else None
        return part

    def fault(self, place: Place, sentence: str) -> Fault:
        """A fault at a key, or at the nearest key around it that is written."""
        shown = ".".join(str(part)[:60] for part in place)
        while place and place not in self.lines:
            place = place[:-1]
        return Fault(self.file, self.lines.get(place, 1), f"{shown}: {sentence}" if shown else sentence)


def read_document(file: Path) -> Document:
    """The document in that file; what is wrong with its layout stands in its faults."""
    document = Document(file)
    try:
        text = file.read_text(encoding="utf-8")
        document.faults += _markup_faults(file, text)
        if not document.faults:
            _take(document, _yaml().compose(text))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        document.faults.append(Fault(file, line, f"must be UTF-8 text; got {error.reason}"))
    except OSError as error:
        document.faults.append(Fault(file, 1, f"must be a readable file; got {error.strerror}"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.faults.append(
            Fault(file, mark.line + 1 if mark else 1, f"must be YAML; got {error.problem}")
        )
    except YAMLError:
        document.faults.append(Fault(file, 1, "must be YAML; got characters that YAML does not allow"))
    return document


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _markup_faults(file: Path, text: str) -> Iterator[Fault]:
    for token in _yaml().scan(text):
        if what := _NOT_PLAIN.get(type(token)):
            line = token.start_mark.line + 1
            yield Fault(file, line, f"values must be written out; got {what}, which hides what is declared")


def _take(document: Document, node: Node | None) -> None:
    if isinstance(node, MappingNode):
        document.data = _mapping(node, (), document)
    else:
        document.faults.append(Fault(document.file, 1, "must be a mapping of keys; got none"))


def _plain(node: Node, place: Place, document: Document) -> Any:
    if isinstance(node, MappingNode):
        return _mapping(node, place, document)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            document.lines[(*place, index)] = item.start_mark.line + 1
        return tuple(_plain(item, (*place, i), document) for i, item in enumerate(node.value))
    return _scalar(node)


def _scalar(node: Node) -> Any:
    """The value by YAML's rules; what only looks like a date or a number stays text and is judged as such."""
    try:
        return _yaml().constructor.construct_object(node)
    except ValueError:
        return node.value


def _mapping(node: MappingNode, place: Place, document: Document) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            document.faults.append(
                Fault(document.file, line, "a key must be plain text; got a list or a mapping")
            )
            continue
        key = str(key_node.value)
        if key in data:
            first = document.lines[(*place, key)]
            sentence = f"key {key[:60]!r} stands twice; the first is in line {first}"
            document.faults.append(Fault(document.file, line, sentence))
            continue
        document.lines[(*place, key)] = line
        data[key] = _plain(value_node, (*place, key), document)
    return data
