"""Which files are joined: as a binary counter carries, up to a size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.folding import join_bytes, number_folded

LARGE = 1 << 60


def folded(sizes: list[int], full_bytes: int = LARGE) -> tuple[list[int], int]:
    """Sizes of the files after nights that bring one of each size, and all the bytes that were written again."""
    files: list[int] = []
    written = 0
    for size in sizes:
        files.append(size)
        if number := number_folded(files, full_bytes):
            files[-number:] = [sum(files[-number:])]
            written += files[-1]
    return files, written


def test_a_thousand_nights_leave_no_more_files_than_ten_did() -> None:
    assert max(len(folded([1] * nights)[0]) for nights in range(1_001)) <= 10
    assert folded([1] * 1_000)[1] <= 1_000 * 10, "each byte at most log2(nights) times"


@given(st.lists(st.integers(0, 1_000), max_size=60))
def test_each_file_is_larger_than_all_after_it(sizes: list[int]) -> None:
    files, written = folded(sizes)
    assert sum(files) == sum(sizes)
    assert all(size > sum(files[place + 1 :]) for place, size in enumerate(files[:-1]))
    assert len(files) <= 2 + (sum(sizes) or 1).bit_length()
    assert written <= sum(sizes) * (len(sizes).bit_length() + 10)


def test_full_files_are_left_alone() -> None:
    assert number_folded([10, 10], 10) == 0
    assert number_folded([10, 3, 3], 10) == 2
    assert number_folded([6, 6], 10) == 0
    assert number_folded([9, 1, 1], 10) == 2
    assert number_folded([1], 10) == 0
    assert number_folded([], 10) == 0


def test_bytes_are_joined_in_order_into_a_new_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, content in zip(paths, (b"12", b"", b"3"), strict=True):
        path.write_bytes(content)
    join_bytes(paths, tmp_path / "all")
    assert (tmp_path / "all").read_bytes() == b"123"
    with pytest.raises(FileExistsError):
        join_bytes(paths, tmp_path / "all")
