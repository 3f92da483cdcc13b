from __future__ import annotations

import pytest
import timm

from saccade.errors import UnknownModelError
from saccade.models.catalogue import FREE_LICENSES, license_of
from saccade.models.ranking import TABLE, expected_score, ranked_networks


def test_every_network_of_the_table_is_free_and_of_timm() -> None:
    table = ranked_networks()
    known = set(timm.list_pretrained())
    assert len(table) > 500
    assert set(table) <= known
    assert {license_of(name) for name in table} <= set(FREE_LICENSES)
    assert TABLE.stat().st_size < 100_000


def test_networks_are_ordered_by_score_and_have_costs() -> None:
    rows = list(ranked_networks().values())
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    assert all(row.params_m > 0 and row.gmacs > 0 and row.img_size > 0 for row in rows)
    resnet = ranked_networks()["resnet50.a1_in1k"]
    assert resnet.params_m == pytest.approx(23.5, rel=0.01)  # without the classifier layer
    assert resnet.gmacs == pytest.approx(4.1, rel=0.05)
    assert resnet.num_bytes == pytest.approx(94e6, rel=0.01)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("vit_large_patch14_reg4_dinov2", "vit_small_patch14_reg4_dinov2"),
        ("vit_base_patch16_siglip_224.v2_webli", "vit_base_patch16_224.augreg_in1k"),
        ("convnext_base.fb_in22k_ft_in1k", "convnext_base.fb_in1k"),
        ("tf_efficientnet_lite2", "tf_efficientnet_lite0"),
        ("resnet50d", "resnet18"),
    ],
)
def test_known_differences(better: str, worse: str) -> None:
    assert (expected_score(better) or 0) > (expected_score(worse) or 0)


def test_networks_without_a_row() -> None:
    assert expected_score("test_resnet") is None
    assert expected_score("vit_base_patch16_dinov3") is None  # its licence does not allow any use
    with pytest.raises(UnknownModelError):
        expected_score("resnet1800")
