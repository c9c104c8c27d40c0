"""Labelled text that Python carries: its manual, as code against prose, and by its parts."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np

from steering.probes.data import LabelledTexts, Span

__all__ = ["BUILTIN", "code_in_python_docs", "manual_parts"]

TEXT_CHARS = 500
"""A text ends with the paragraph that reaches so many characters."""
MIN_WORDS = 6
PARTS_OF_MANUAL: Mapping[str, tuple[str, ...]] = {
    "built-in types": (
        "string-methods",
        "truth",
        "typesfunctions",
        "typesmapping",
        "typesmethods",
        "typesmodules",
        "typesseq",
        "typesseq-mutable",
    ),
    "data model": (
        "attribute-access",
        "callable-types",
        "context-managers",
        "customization",
        "naming",
        "numeric-types",
        "objects",
        "sequence-types",
        "specialattrs",
        "specialnames",
        "types",
    ),
    "expressions": (
        "atom-identifiers",
        "atom-literals",
        "attribute-references",
        "await",
        "binary",
        "bitwise",
        "booleans",
        "calls",
        "comparisons",
        "conversions",
        "dict",
        "exprlists",
        "in",
        "lambda",
        "lists",
        "operator-summary",
        "power",
        "shifting",
        "slicings",
        "subscriptions",
        "unary",
        "yield",
    ),
    "format and debugger": ("debugger", "formatstrings"),
    "lexical analysis": (
        "floating",
        "id-classes",
        "identifiers",
        "imaginary",
        "integers",
        "numbers",
        "strings",
    ),
    "statements": (
        "assert",
        "assignment",
        "async",
        "augassign",
        "break",
        "class",
        "compound",
        "continue",
        "del",
        "else",
        "exceptions",
        "for",
        "function",
        "global",
        "if",
        "import",
        "nonlocal",
        "pass",
        "raise",
        "return",
        "try",
        "while",
        "with",
    ),
}

Kind = Literal["code", "prose"]
Paragraph = tuple[Kind, str]


def code_in_python_docs() -> LabelledTexts:
    """Stretches of the manual, about 500 characters each; spans mark the code in them.

    An item is a topic. What is neither plainly code nor plainly prose (headings, signatures,
    tables) is left out, as are paragraphs that an earlier topic had, and all indentation of a
    paragraph as a whole: it would tell code from prose.
    """
    from pydoc_data.topics import topics

    texts, items, spans = [], [], []
    seen: set[str] = set()
    for topic, text in sorted(topics.items()):
        for stretch in _stretches(_new_paragraphs(text, seen)):
            start, marked = 0, []
            for kind, paragraph in stretch:
                if kind == "code":
                    marked.append(Span(start, start + len(paragraph), 0))
                start += len(paragraph) + 2
            texts.append("\n\n".join(paragraph for _, paragraph in stretch))
            items.append(topic)
            spans.append(tuple(marked))
    y_N1 = np.array([[bool(some)] for some in spans])
    return LabelledTexts(texts, items, y_N1, ("code",), "binary", spans)


def manual_parts() -> LabelledTexts:
    """A text a paragraph; its class is the part of the manual, its item four neighbours."""
    from steering.styles.manual import manual_rows

    part_of = {topic: part for part, topics in PARTS_OF_MANUAL.items() for topic in topics}
    rows = manual_rows()
    assert rows.texts is not None
    kept = [row for row, topic in enumerate(rows.groups) if topic in part_of]
    names = tuple(PARTS_OF_MANUAL)
    class_N = np.array([names.index(part_of[rows.groups[row]]) for row in kept])
    return LabelledTexts(
        texts=[rows.texts[row] for row in kept],
        items=[rows.items[row] for row in kept],
        y_NL=np.eye(len(names), dtype=np.bool_)[class_N],
        label_names=names,
        task="multiclass",
    )


BUILTIN: Mapping[str, Callable[[], LabelledTexts]] = {
    "python-docs": code_in_python_docs,
    "manual-parts": manual_parts,
}
"""By the name that `LabelledSpec.builtin` has for it."""


def _new_paragraphs(text: str, seen: set[str]) -> Iterator[Paragraph]:
    for block in re.split(r"\n[ \t]*\n", text):
        kind = _kind(block)
        paragraph = textwrap.dedent(block).strip("\n").rstrip()
        if kind is not None and paragraph not in seen:
            seen.add(paragraph)
            yield kind, paragraph


def _stretches(paragraphs: Iterator[Paragraph]) -> Iterator[list[Paragraph]]:
    stretch: list[Paragraph] = []
    length = 0
    for kind, paragraph in paragraphs:
        stretch.append((kind, paragraph))
        length += len(paragraph) + 2
        if length >= TEXT_CHARS:
            yield stretch
            stretch, length = [], 0
    if stretch:
        yield stretch


def _kind(block: str) -> Kind | None:
    """Code is indented and is Python, a session or a grammar; prose is words."""
    body = textwrap.dedent(block).strip("\n")
    lines = body.splitlines()
    if not lines:
        return None
    is_indented = block.lstrip("\n").startswith("   ")
    if is_indented and (lines[0].startswith(">>>") or any("::=" in line for line in lines)):
        return "code"
    words = body.split()
    plain = sum(
        re.fullmatch(r"[(\"]?[A-Za-z][a-z'-]*[.,;:)\"]*", word) is not None for word in words
    )
    if len(words) >= MIN_WORDS and plain >= 0.6 * len(words):
        return "prose"
    return "code" if is_indented and _is_python(body) else None


def _is_python(body: str) -> bool:
    """Whether it parses, and is more than one name, number or signature."""
    try:
        statements = ast.parse(body).body
    except (SyntaxError, ValueError):
        return False
    if len(statements) == 1 and isinstance(statements[0], ast.Expr) and "\n" not in body:
        return False
    return bool(statements)
