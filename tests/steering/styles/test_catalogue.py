"""A catalogue says what each place of a vector stands for, and refuses one that does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from steering.styles.catalogue import Attribute, Catalogue, read_catalogue
from steering.styles.errors import BadStyleData


def catalogue(num_style: int = 3, num_target: int = 2, num_knowledge: int = 1) -> Catalogue:
    roles = ["style"] * num_style + ["target"] * num_target + ["knowledge"] * num_knowledge
    attributes = tuple(
        Attribute(id=f"a{n}", text=f"The author does {n}.", role=role)
        for n, role in enumerate(roles)
    )
    return Catalogue(name="c", version="1", dimension=len(roles), attributes=attributes)


def test_targets_are_style() -> None:
    assert catalogue().places("style") == [0, 1, 2, 3, 4]
    assert catalogue().places("target") == [3, 4]
    assert catalogue().places("knowledge") == [5]


def test_the_hash_follows_what_places_mean() -> None:
    one = catalogue()
    assert one.sha256 == catalogue().sha256
    reversed_ = one.model_copy(update={"attributes": tuple(reversed(one.attributes))})
    renamed = one.model_copy(update={"name": "another", "version": "2"})
    assert Catalogue.model_validate(reversed_.model_dump()).sha256 != one.sha256
    assert Catalogue.model_validate(renamed.model_dump()).sha256 == one.sha256


def test_an_attribute_that_was_picked_twice_is_named() -> None:
    attributes = [one.model_dump() for one in catalogue().attributes]
    attributes[5] = {"id": "b", "text": "the author  does 3", "role": "knowledge"}
    with pytest.raises(ValidationError, match="text given more than once: 'the author does 3'"):
        Catalogue.model_validate(
            {"name": "c", "version": "1", "dimension": 6, "attributes": attributes}
        )


def test_a_vector_that_is_one_short_is_refused_with_the_name_of_the_duplicate() -> None:
    whole = catalogue()
    ids = [*whole.ids[:5], "a3"]  # a3 again, as knowledge, in place of a5
    with pytest.raises(BadStyleData, match=r"more than once: 'a3'; missing: 'a5'"):
        whole.check_attributes(ids)
    with pytest.raises(BadStyleData, match=r"vector of 5 attributes does not fit .* missing: 'a3'"):
        whole.check_attributes([one for one in whole.ids if one != "a3"])
    with pytest.raises(BadStyleData, match="5 numbers, but catalogue c 1 has 6"):
        whole.check_length(5)
    with pytest.raises(BadStyleData, match="another order"):
        whole.check_attributes(tuple(reversed(whole.ids)))
    whole.check_attributes(whole.ids)


def test_a_file_is_read_or_all_its_faults_are_told(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.json"
    file.write_text(catalogue().model_dump_json())
    assert read_catalogue(file) == catalogue()
    values = json.loads(file.read_text()) | {"dimension": 768}
    values["attributes"][1]["id"] = "a0"
    file.write_text(json.dumps(values))
    with pytest.raises(
        BadStyleData, match=r"id given more than once: 'a0'; 6 attributes, but .*768"
    ):
        read_catalogue(file)
    with pytest.raises(BadStyleData, match="cannot be read"):
        read_catalogue(tmp_path / "nothing.json")
