from __future__ import annotations

import numpy as np

from pipeline.usage import spare_memory_mb


def test_what_the_process_holds_already_is_not_given_to_its_database() -> None:
    before = spare_memory_mb(100_000)
    held = np.ones(200 << 17)  # 200 MiB
    assert 150 < before - spare_memory_mb(100_000) < 260
    assert before < 100_000 - held.nbytes // 2**21


def test_a_full_process_still_leaves_a_database_enough_to_spill() -> None:
    assert spare_memory_mb(1) == 128
