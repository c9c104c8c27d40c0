"""YAML as plain values, with the line and column of every key and value kept beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from orchestrator.spec.faults import Fault, KeyPath, SpecFaults

MAX_NODES = 100_000
"""More than a person writes; stops a file whose aliases multiply."""


@dataclass(frozen=True)
class YamlText:
    """A parsed file: its plain values, and where each of them stands."""

    data: Any
    positions: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    """KeyPath -> (line, column) of its key, both counted from 1; of the value in a list."""
    faults: tuple[Fault, ...] = ()
    """Duplicate keys: the file can be read, but not as it was meant."""

    def place(self, fault: Fault) -> Fault:
        """The fault with its line: that of its path, else of the nearest thing around it."""
        if fault.line is not None:
            return fault
        for length in range(len(fault.path), -1, -1):
            position = self.positions.get(fault.path[:length])
            if position is not None:
                return replace(fault, line=position[0], column=position[1])
        return fault

    def all_placed(self, faults: Iterable[Fault]) -> list[Fault]:
        """Faults with their lines."""
        return [self.place(fault) for fault in faults]


def parse_yaml(text: str, source: str) -> YamlText:
    """Read one YAML 1.2 document.

    Raises:
        SpecFaults: it is no YAML, empty, or no mapping at its top.
    """
    try:
        root = YAML(typ="rt", pure=True).compose(text)
        if not isinstance(root, MappingNode):
            raise SpecFaults([_no_mapping(root)], source)
        positions: dict[KeyPath, tuple[int, int]] = {(): (1, 1)}
        walk = _Walk(positions)
        walk.visit(root, ())
        if walk.endless:
            raise SpecFaults([walk.endless], source)
        loader = YAML(typ="safe", pure=True)
        loader.allow_duplicate_keys = True
        data = loader.load(text)
    except YAMLError as error:
        raise SpecFaults([_syntax_fault(error)], source) from error
    except RecursionError as error:
        fault = Fault((), "is nested too deeply to read", way_out="flatten it")
        raise SpecFaults([fault], source) from error
    except ValueError as error:
        if isinstance(error, SpecFaults):
            raise
        fault = Fault((), f"a value cannot be read ({error})", way_out="quote it")
        raise SpecFaults([fault], source) from error
    return YamlText(_with_text_keys(data), positions, tuple(walk.duplicates))


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _with_text_keys(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_text_keys(item) for item in data]
    return data


class _Walk:
    """Notes the position of every key and list item, and the keys that stand twice."""

    def __init__(self, positions: dict[KeyPath, tuple[int, int]]) -> None:
        self.positions = positions
        self.duplicates: list[Fault] = []
        self.endless: Fault | None = None
        self._open: set[int] = set()
        self._num_nodes = 0

    def visit(self, node: Node, path: KeyPath) -> None:
        self._num_nodes += 1
        if id(node) in self._open or self._num_nodes > MAX_NODES:
            way_out = "write the values out instead of using & and *"
            self.endless = Fault((), "its aliases never end", way_out=way_out)
        if self.endless:
            return
        self._open.add(id(node))
        if isinstance(node, MappingNode):
            self._visit_mapping(node, path)
        elif isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                self.positions[*path, index] = _position(item)
                self.visit(item, (*path, index))
        self._open.discard(id(node))

    def _visit_mapping(self, node: MappingNode, path: KeyPath) -> None:
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            line, column = _position(key_node)
            if key in first_line:
                self.duplicates.append(
                    Fault(
                        (*path, key),
                        f"stands twice, first on line {first_line[key]}",
                        way_out="keep one of the two",
                        line=line,
                        column=column,
                    )
                )
            first_line.setdefault(key, line)
            self.positions.setdefault((*path, key), (line, column))
            self.visit(value_node, (*path, key))


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _no_mapping(root: Node | None) -> Fault:
    rule = "is empty" if root is None else "must hold `key: value` lines"
    return Fault((), rule, way_out="start with `name: my-sweep` and `job: sae_train`", line=1)


def _syntax_fault(error: YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else None
    column = mark.column + 1 if mark else None
    if not isinstance(error, MarkedYAMLError):
        first_line = str(error).strip().splitlines()[0]
        return Fault((), f"is not a text file of YAML ({first_line})", line=line, column=column)
    problem = " ".join(str(part) for part in (error.context, error.problem) if part)
    way_out = "check indentation (spaces, no tabs), quotes and brackets there"
    if "single document" in problem:
        way_out = "keep one sweep a file: remove what follows `---`"
    return Fault((), f"is not valid YAML: {problem}", way_out=way_out, line=line, column=column)
