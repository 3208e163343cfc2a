from __future__ import annotations

import pytest
import torch

from model.config.network import ExpertPath
from model.experts.fastest_path import WORTH_CHANGING, expert_seconds, fastest
from model.experts.mixture import PRODUCTS
from tests.model.tiny import tiny_config


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("changes", [{}, {"gate": "sparsemax"}, {"num_experts": 8, "num_experts_per_tok": 1}])
def test_every_path_is_timed(precision: str, changes: dict[str, object]) -> None:
    config = tiny_config(**({"minimind_compatible": True} | changes))
    before = torch.get_rng_state()
    seconds = expert_seconds(config, 64, precision, torch.device("cpu"))
    assert seconds.keys() == PRODUCTS.keys()
    assert all(0 < each < float("inf") for each in seconds.values())
    assert torch.equal(torch.get_rng_state(), before), "a probe must not change what is drawn after it"


@pytest.mark.parametrize(
    ("loop", "expected"), [(1.5, "grouped"), (1.0, "grouped"), (WORTH_CHANGING, "grouped"), (0.9, "loop")]
)
def test_grouped_products_unless_a_loop_is_clearly_faster(loop: float, expected: ExpertPath) -> None:
    assert fastest({"grouped": 1.0, "loop": loop}) == expected
