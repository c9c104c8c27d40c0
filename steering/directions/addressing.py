"""Sentences about an author, said to the model: "The author uses irony." -> "You use irony."."""

from __future__ import annotations

import re

from steering.errors import BadSteeringInput

__all__ = ["addressed"]

_ABOUT_AUTHOR = re.compile(r"^(?:the|an?) (?:author|writer|text|speaker)('s)? +", re.IGNORECASE)
_IRREGULAR = {"is": "are", "was": "were", "has": "have", "does": "do", "goes": "go"}
_SAME = frozenset({"often", "always", "never", "sometimes", "rarely", "seldom", "usually"})


def addressed(attribute: str, template: str = "You use {attribute}.") -> str:
    """The attribute as a sentence in the second person.

    Args:
        attribute: "The author avoids slang." becomes "You avoid slang."; what is no sentence about
            an author, such as "passive voice", goes into the template.

    Raises:
        BadSteeringInput: a template without `{attribute}`, or an empty attribute.
    """
    if "{attribute}" not in template:
        raise BadSteeringInput(f"template {template!r} has no place for it; write {{attribute}}")
    text = " ".join(attribute.split())
    if not text:
        raise BadSteeringInput("an attribute is empty; give it a text")
    match = _ABOUT_AUTHOR.match(text)
    if match is None:
        return template.replace("{attribute}", text.removesuffix("."))
    rest = text[match.end() :].removesuffix(".")
    if match[1]:
        return f"Your {rest}."
    words = rest.split(" ")
    verb = next((n for n, word in enumerate(words) if not _is_adverb(word)), 0)
    words[verb] = _second_person(words[verb])
    return f"You {' '.join(words)}.".replace(" their ", " your ")


def _is_adverb(word: str) -> bool:
    return word.lower() in _SAME or word.endswith("ly")


def _second_person(verb: str) -> str:
    if verb.lower() in _IRREGULAR:
        return _IRREGULAR[verb.lower()]
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if verb.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else verb
