"""Labelled texts of which a word tells the label."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = ("river", "mill", "children", "village", "water", "wheel", "grain", "flour", "miller")


def write_texts(file: Path) -> Path:
    """Two hundred texts by forty authors, a .jsonl; those about bread speak of the bread."""
    draw = random.Random(0)
    with open(file, "w") as out:
        for row in range(200):
            words = draw.choices(WORDS, k=8)
            is_bread = row % 2 == 0
            if is_bread:
                words[draw.randrange(8)] = "bread"
            text = f"{row}: {' '.join(words)}"
            out.write(json.dumps({"text": text, "bread": is_bread, "who": f"a{row // 5}"}) + "\n")
    return file
