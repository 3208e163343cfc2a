"""What bytes that are no UTF-8 are taken for, and which setting is named for a row of another format."""

from __future__ import annotations

import json

import pytest

from schemas.guesses import likely_encoding, likely_setting
from schemas.jsonl import Chunk, parse_chunk

TEXTS = {
    "GB18030": "今天天气很好，我们一起去公园散步吧。",
    "BIG5": "今天天氣很好，我們一起去公園散步吧。",
    "SHIFT_JIS": "今日はとても天気がいいので、公園を散歩しました。",
    "EUC-JP": "今日はとても天気がいいので、公園を散歩しました。",
    "EUC-KR": "오늘은 날씨가 좋아서 공원에서 산책을 했습니다.",
    "WINDOWS-1251": "Сегодня хорошая погода, и мы гуляли в парке.",
    "WINDOWS-1252": "Un café près de la gare, déjà fermé à midi.",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_a_line_of_another_encoding_is_told_with_the_cure(encoding: str) -> None:
    line = json.dumps({"text": TEXTS[encoding]}, ensure_ascii=False).encode(encoding)
    _, faults = parse_chunk(Chunk(1, [0], [line], {}))
    assert faults[0].rule == "not_utf8"
    assert f"likely {encoding}, convert it: iconv -f {encoding} -t UTF-8" in faults[0].detail
    assert len(faults[0].detail) <= 200


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b'{"text": "a\xfe"}', bytes(range(128, 256)), b"\x80" * 40])
def test_bytes_of_no_text_are_not_guessed_at(data: bytes) -> None:
    assert likely_encoding(data) is None


@pytest.mark.parametrize(
    ("row", "kind", "row_format", "told"),
    [
        ('{"messages": [{"role": "user"', "chat", "minimind", "format: openai"),
        ('{"conversations": [{"from": "human", "value": "a', "chat", "openai", "format: sharegpt"),
        ('{"instruction": "a", "output": "b"}', "chat", "minimind", "format: alpaca"),
        ('{"text": "a"}', "chat", "minimind", "kind: pretrain"),
        ('{"conversations": [{"role": "a", "content": "b"}]}', "chat", "sharegpt", "format: minimind"),
        ('{"conversations": [{"from": "a", "value": "b"}]}', "chat", "minimind", ""),
        ('{"text": "a"}', "pretrain", "minimind", ""),
        ('[{"role": "user", "content": "a"}]', "chat", "minimind", "bare arrays"),
        ('[[{"role": "user", "content": "a"}]]', "chat", "openai", "bare arrays"),
        ('{"id": 1, "role": "user", "content": "a"}', "chat", "minimind", "single turns"),
        ('{"from": "human", "value": "a"}', "chat", "sharegpt", "single turns"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "pretrain", "minimind", "format: openai"),
        ("nothing of the sort", "chat", "minimind", ""),
    ],
)
def test_the_setting_that_reads_a_row_is_named(row: str, kind: str, row_format: str, told: str) -> None:
    assert told in (found := likely_setting(row, kind, row_format))
    assert bool(found) == bool(told)
