"""Forty style attributes, for a table without a catalogue of one's own."""

from steering.styles.catalogue import Attribute, Catalogue

_TEXTS = """
The author uses long and complicated sentences.
The author uses short and simple sentences.
The author uses technical terms.
The author avoids technical terms.
The author gives precise definitions.
The author explains things step by step.
The author gives examples.
The author writes in general and abstract terms.
The author uses lists.
The author uses passive voice.
The author uses the imperative.
The author addresses the reader directly.
The author speaks of himself in the first person.
The author is formal.
The author is casual and chatty.
The author is polite.
The author is blunt.
The author is humorous.
The author is serious.
The author is enthusiastic.
The author is detached and neutral.
The author shows strong emotions.
The author is cautious and hedges statements.
The author is certain and assertive.
The author describes exceptions and special cases.
The author names conditions under which something holds.
The author compares alternatives.
The author refers to other passages.
The author quotes code or symbols.
The author uses numbers and quantities.
The author uses metaphors.
The author tells stories.
The author asks rhetorical questions.
The author uses exclamation marks.
The author uses parentheses.
The author uses abbreviations.
The author warns of mistakes.
The author gives advice.
The author repeats key words.
The author writes tersely, like a reference manual.
"""


def builtin_catalogue() -> Catalogue:
    """The catalogue `builtin-40`."""
    texts = _TEXTS.strip().splitlines()
    attributes = tuple(
        Attribute(id=text.removeprefix("The author ").removesuffix("."), text=text)
        for text in texts
    )
    return Catalogue(
        name="builtin-40", version="1", dimension=len(attributes), attributes=attributes
    )
