"""Entries by latent, shared out in parts: every entry once, and room for all of them.

Shape suffixes: N = entries of a code.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sae.batched.kernels.latent_segments import latent_segments

NUM_LATENTS = 6


@given(
    st.lists(st.integers(0, NUM_LATENTS), max_size=40),
    st.integers(1, 9),
)
def test_every_entry_is_in_one_part_and_every_latent_has_one(latents: list[int], part: int) -> None:
    index_N = torch.tensor(latents, dtype=torch.int32)
    token_N = torch.arange(len(latents), dtype=torch.int32) // 3
    found = latent_segments(index_N, token_N, NUM_LATENTS, part)
    assert found.num_latents == NUM_LATENTS
    seen: list[int] = []
    rows: list[int] = []
    for program, latent in enumerate(found.latent_P.tolist()):
        if latent == NUM_LATENTS:
            continue
        number = program - int(found.first_F[latent])
        start = int(found.start_F1[latent]) + number * part
        end = min(int(found.start_F1[latent + 1]), start + part)
        entries = found.place_N[start:end].tolist()
        assert [latents[entry] for entry in entries] == [latent] * len(entries)
        assert found.token_N[start:end].tolist() == [entry // 3 for entry in entries]
        seen += entries
        several = int(found.parts_F[latent]) > 1
        rows.append(int(found.spare_F[latent]) + number if several else latent)
        assert not several or latent in found.split_M.tolist()
    assert sorted(seen) == [n for n, latent in enumerate(latents) if latent < NUM_LATENTS]
    assert len(set(rows)) == len(rows) and max(rows) < found.num_rows
    assert set(found.latent_P.tolist()) | {NUM_LATENTS} == set(range(NUM_LATENTS + 1))
    expected = torch.bincount(index_N, minlength=NUM_LATENTS + 1)[:NUM_LATENTS]
    assert found.fired_F().tolist() == expected.tolist()
