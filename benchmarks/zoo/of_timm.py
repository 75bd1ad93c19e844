"""One small network of many families of `timm`, with dropout and stochastic depth on.

In an environment of its own: `pip install --no-deps timm==1.0.20`.
"""

from __future__ import annotations

from functools import partial

import torch
from benchmarks.zoo.cases import Build, Case
from benchmarks.zoo.standing_in import torchvision
from benchmarks.zoo.thinned import thinned
from torch import nn

CLASSES, ROWS, SIDE = 3, 4, 64
_NETWORKS = """
resnet18 resnet26d resnext26ts skresnet18 resnetv2_50 resnetrs50 seresnet18 densenet121 dla34
efficientnet_b0 mobilenetv3_small_050 mobilenetv4_conv_small_035 mnasnet_050 ghostnet_050
lcnet_035 regnetx_002 regnety_002 nfnet_l0 dm_nfnet_f0 convnext_atto convnextv2_atto
convnext_atto_ols inception_next_tiny edgenext_xx_small fastvit_t8 repvgg_a0 rexnet_100
res2net50_26w_4s selecsls42 hrnet_w18_small vovnet39a darknet17 cspresnet50 hardcorenas_a
tinynet_e xception41 vgg11_bn inception_v3 inception_resnet_v2 dpn48b senet154 hgnetv2_b0
starnet_s1 repghostnet_050 vit_tiny_patch16_224 deit_tiny_patch16_224 beit_base_patch16_224
eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 swin_tiny_patch4_window7_224
swinv2_tiny_window8_256 gcvit_xxtiny maxvit_pico_rw_256 coatnet_pico_rw_224 coat_lite_tiny
convit_tiny crossvit_tiny_240 davit_tiny efficientformer_l1 efficientformerv2_s0 efficientvit_b0
efficientvit_m0 focalnet_tiny_srf levit_128s mixer_s32_224 gmlp_ti16_224 resmlp_12_224
mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny pit_ti_224 poolformer_s12 caformer_s18
pvt_v2_b0 repvit_m0_9 sequencer2d_s tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_svt_small
visformer_tiny volo_d1_224 hiera_tiny_224 vitamin_small_224 mambaout_femto rdnet_tiny
test_byobnet test_efficientnet test_efficientnet_gn test_nfnet test_resnet test_vit test_vit4
botnet26t_256 halonet26t lambda_resnet26t ese_vovnet19b_dw gernet_s legacy_seresnet18
convmixer_768_32 nextvit_small samvit_base_patch16_224 vit_relpos_small_patch16_224 swiftformer_xs
shvit_s1 fasternet_t0 mobileone_s0 ghostnetv2_100 tf_efficientnet_lite0 fbnetc_100 spnasnet_100
mixnet_s deit3_small_patch16_224 flexivit_small mobilenetv2_050 gcresnet33ts resnetblur50
ecaresnet26t regnetz_b16 lcnet_050 nasnetalarge pnasnet5large wide_resnet50_2
"""
_FEW = [{"depth": 2}, {"depths": (1, 1, 1, 1)}, {"layers": (1, 1, 1, 1)}, {}]  # of the layers


def networks() -> dict[str, Build]:
    """What makes each network, by its name."""
    with torchvision():
        import timm

    known = set(timm.list_models())
    return {name: partial(_case, name) for name in _NETWORKS.split() if name in known}


def _case(name: str) -> Case:
    import timm

    torch.manual_seed(0)
    rates = [{"drop_rate": 0.2, "drop_path_rate": 0.2}, {"drop_rate": 0.2}, {}]
    tried = (
        {**size, **few, **rate} for few in _FEW for size in ({"img_size": 96}, {}) for rate in rates
    )
    for given in tried:
        try:
            network = timm.create_model(name, num_classes=CLASSES, **given)
            side = given.get("img_size", SIDE)
            network.eval()(torch.randn(1, 3, side, side))
        except Exception:  # arguments that a family does not know, or sizes that do not fit
            continue
        return _small(network, side)
    return _small(timm.create_model(name, num_classes=CLASSES, drop_rate=0.2), 224)


def _small(network: nn.Module, side: int) -> Case:
    for parameter in network.parameters():  # heads that begin at 0 hide all that is in front
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    one, rows = torch.randn(1, 3, side, side), torch.randn(ROWS, 3, side, side)
    return Case(thinned(network, lambda: network(one)), {"x": rows})
