"""Multiple-instance learning by attention: learned weights say which tokens of a text count."""

from __future__ import annotations

from typing import ClassVar

from steering.probes.methods.multiple_instance_max import MultipleInstanceMax
from steering.probes.scorers import BagPooling


class MultipleInstanceAttention(MultipleInstanceMax):
    """Tokens are scored and weighed, texts are labelled, a text is its tokens' weighted mean."""

    name: ClassVar[str] = "multiple_instance_attention"
    bag_pooling: ClassVar[BagPooling] = "attention"
