"""Everyday operators beside the allow-list: taken apart, respelled, or computed at export."""

import torch

from .spellings import MIXED, REFUSED, STEPS, served


def test_everyday_operators_are_exported_and_served(tmp_path):
    engine = served(sorted(MIXED), tmp_path / "network.dubito")
    assert (torch.as_tensor(engine.predict(torch.randn(9, 8).numpy()).variance) > 0).all()


def test_the_table_of_steps_is_as_large_as_it_claims():
    assert len(STEPS) - len(REFUSED) >= 230
    assert set(STEPS) > REFUSED | MIXED
