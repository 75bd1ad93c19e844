"""Networks of many small packages, as they are published, small and with dropout on.

A line names a class by its path and gives its arguments; a network is left out where its package is
not installed. What a package leaves to its user, such as the step of a spiking network or a graph,
is in `used.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from benchmarks.zoo import used
from benchmarks.zoo.cases import Build, Case
from benchmarks.zoo.standing_in import torchvision
from torch import Tensor, nn

C, ROWS = 3, 5
_INPUTS: dict[str, Callable[[], Tensor]] = {
    "image": lambda: torch.randn(ROWS, 3, 32, 32),
    "large": lambda: torch.randn(ROWS, 3, 64, 64),
    "gray": lambda: torch.randn(ROWS, 1, 32, 32),
    "volume": lambda: torch.randn(ROWS, 1, 16, 16, 16),
    "video": lambda: torch.randn(ROWS, 3, 4, 16, 16),
    "frames": lambda: torch.randn(ROWS, 4, 3, 16, 16),
    "tokens": lambda: torch.randint(1, 40, (ROWS, 16)),
    "sequence": lambda: torch.randn(ROWS, 16, 16),
    "channels": lambda: torch.randn(ROWS, 16, 16),
    "pixels": lambda: torch.randn(ROWS, 16, 16, 3),
    "wave": lambda: torch.randn(ROWS, 3, 64),
    "features": lambda: torch.randn(ROWS, 8),
    "fields": lambda: torch.randint(0, 5, (ROWS, 4)),
}
_CLASSES: dict[str, Any] = {}
_EVERY: dict[str, Any] = {"class_axis": -1}
_MAP: dict[str, Any] = {"class_axis": 1}
_NUMBERS: dict[str, Any] = {"task": "regression", "output": "mean"}
_LAST: dict[str, Any] = {**_NUMBERS, "output_axis": -1}
_FIRST: dict[str, Any] = {**_NUMBERS, "output_axis": 1}
_VIT = dict(image_size=32, patch_size=8, num_classes=C, dim=16, depth=1, heads=2, mlp_dim=24)
_D2 = dict(dropout=0.1, emb_dropout=0.1)
_STAGES = dict(dim=(8, 16, 16, 16), depth=(1, 1, 1, 1))
_TWO = dict(attn_dropout=0.1, ff_dropout=0.1)
_2D = dict(spatial_dims=2, in_channels=3)
_FM = dict(field_dims=[5, 5, 5, 5], embed_dim=4)

Line = tuple[str, str, dict[str, Any], dict[str, Any]]
_LINES: list[Line] = [
    ("vit_pytorch.vit.ViT", "image", _CLASSES, {**_VIT, **_D2}),
    ("vit_pytorch.deepvit.DeepViT", "image", _CLASSES, {**_VIT, **_D2}),
    ("vit_pytorch.cait.CaiT", "image", _CLASSES, {**_VIT, **_D2, "cls_depth": 1}),
    ("vit_pytorch.xcit.XCiT", "image", _CLASSES, {**_VIT, **_D2, "cls_depth": 1}),
    ("vit_pytorch.parallel_vit.ViT", "image", _CLASSES, {**_VIT, **_D2}),
    ("vit_pytorch.vit_for_small_dataset.ViT", "image", _CLASSES, {**_VIT, **_D2}),
    ("vit_pytorch.vit_with_patch_dropout.ViT", "image", _CLASSES,
     {**_VIT, **_D2, "patch_dropout": 0.25}),
    ("vit_pytorch.vit_with_patch_merger.ViT", "image", _CLASSES,
     {**_VIT, **_D2, "depth": 2, "patch_merge_layer": 1, "patch_merge_num_tokens": 4}),
    ("vit_pytorch.learnable_memory_vit.ViT", "image", _CLASSES, {**_VIT, **_D2}),
    ("vit_pytorch.local_vit.LocalViT", "image", _CLASSES, {**_VIT, **_D2}),
    ("vit_pytorch.ats_vit.ViT", "image", _CLASSES,
     {**_VIT, **_D2, "max_tokens_per_depth": (8,)}),
    ("vit_pytorch.pit.PiT", "image", _CLASSES, {**_VIT, **_D2, "depth": (1, 1)}),
    ("vit_pytorch.t2t.T2TViT", "image", _CLASSES,
     dict(dim=16, image_size=32, depth=1, heads=2, mlp_dim=24, num_classes=C, **_D2,
          t2t_layers=((7, 4), (3, 2)))),
    ("vit_pytorch.cct.CCT", "image", _CLASSES,
     dict(img_size=32, embedding_dim=16, n_conv_layers=1, num_layers=2, num_heads=2, mlp_ratio=2.0,
          num_classes=C, dropout_rate=0.1)),
    ("vit_pytorch.cross_vit.CrossViT", "image", _CLASSES,
     dict(image_size=32, num_classes=C, depth=1, sm_dim=16, sm_patch_size=8, sm_enc_depth=1,
          sm_enc_heads=2, sm_enc_mlp_dim=16, lg_dim=16, lg_patch_size=16, lg_enc_depth=1,
          lg_enc_heads=2, lg_enc_mlp_dim=16, cross_attn_depth=1, cross_attn_heads=2, **_D2)),
    ("vit_pytorch.levit.LeViT", "large", _CLASSES,
     dict(image_size=64, num_classes=C, dim=(16, 16), depth=1, heads=(1, 2), mlp_mult=2,
          dropout=0.1, stages=2)),
    ("vit_pytorch.cvt.CvT", "large", _CLASSES,
     dict(num_classes=C, s1_emb_dim=8, s2_emb_dim=16, s2_heads=2, s2_depth=1, s3_emb_dim=16,
          s3_heads=2, s3_depth=1, dropout=0.1)),
    ("vit_pytorch.twins_svt.TwinsSVT", "large", _CLASSES,
     dict(num_classes=C, s1_emb_dim=8, s1_local_patch_size=4, s1_global_k=4, s2_emb_dim=8,
          s2_local_patch_size=4, s2_global_k=4, s3_emb_dim=8, s3_local_patch_size=4, s3_global_k=4,
          s3_depth=1, s4_emb_dim=8, s4_local_patch_size=2, s4_global_k=2, s4_depth=1,
          dropout=0.1)),
    ("vit_pytorch.crossformer.CrossFormer", "large", _CLASSES,
     dict(num_classes=C, **_STAGES, global_window_size=(4, 2, 2, 1), local_window_size=(4, 4, 2, 2),
          attn_dropout=0.1, ff_dropout=0.1)),
    ("vit_pytorch.nest.NesT", "image", _CLASSES,
     dict(image_size=32, patch_size=4, dim=8, heads=2, num_hierarchies=2, block_repeats=(1, 1),
          num_classes=C, dropout=0.1)),
    ("vit_pytorch.max_vit.MaxViT", "large", _CLASSES,
     dict(num_classes=C, dim_conv_stem=8, dim=8, dim_head=4, depth=(1, 1), window_size=4,
          dropout=0.1)),
    ("vit_pytorch.scalable_vit.ScalableViT", "large", _CLASSES,
     dict(num_classes=C, dim=8, heads=(1, 2), depth=(1, 1), ssa_dim_key=(8, 8),
          reduction_factor=(4, 2), window_size=(4, 4), dropout=0.1)),
    ("vit_pytorch.sep_vit.SepViT", "large", _CLASSES,
     dict(num_classes=C, dim=8, dim_head=4, heads=(1, 2), depth=(1, 1), window_size=4,
          dropout=0.1)),
    ("vit_pytorch.vit_1d.ViT", "wave", _CLASSES,
     dict(seq_len=64, patch_size=8, num_classes=C, dim=16, depth=1, heads=2, mlp_dim=24, **_D2)),
    ("vit_pytorch.vit_3d.ViT", "video", _CLASSES,
     {**_VIT, **_D2, "image_size": 16, "image_patch_size": 8, "frames": 4, "frame_patch_size": 2,
      "patch_size": None}),
    ("vit_pytorch.vivit.ViViT", "video", _CLASSES,
     dict(image_size=16, image_patch_size=8, frames=4, frame_patch_size=2, num_classes=C, dim=16,
          spatial_depth=1, temporal_depth=1, heads=2, mlp_dim=24, **_D2)),
    ("mlp_mixer_pytorch.MLPMixer", "image", _CLASSES,
     dict(image_size=32, channels=3, patch_size=8, dim=16, depth=1, num_classes=C, dropout=0.1)),
    ("g_mlp_pytorch.gMLPVision", "image", _CLASSES,
     dict(image_size=32, patch_size=8, num_classes=C, dim=16, depth=2, prob_survival=0.8)),
    ("g_mlp_pytorch.gMLP", "tokens", _EVERY,
     dict(num_tokens=40, dim=16, depth=2, seq_len=16, prob_survival=0.8)),
    ("timesformer_pytorch.TimeSformer", "frames", _CLASSES,
     dict(dim=16, num_frames=4, num_classes=C, image_size=16, patch_size=8, depth=1, heads=2,
          dim_head=8, attn_dropout=0.1, ff_dropout=0.1)),
    ("perceiver_pytorch.Perceiver", "pixels", _CLASSES,
     dict(num_freq_bands=2, depth=1, max_freq=4.0, input_channels=3, num_latents=4, latent_dim=16,
          latent_heads=2, cross_dim_head=8, latent_dim_head=8, num_classes=C, **_TWO)),
    ("linformer.LinformerLM", "tokens", _EVERY,
     dict(num_tokens=40, dim=16, seq_len=16, depth=1, heads=2, k=4, dropout=0.1)),
    ("linformer.Linformer", "sequence", _LAST,
     dict(dim=16, seq_len=16, depth=1, heads=2, k=4, dropout=0.1)),
    ("performer_pytorch.PerformerLM", "tokens", _EVERY,
     dict(num_tokens=40, max_seq_len=16, dim=16, depth=1, heads=2, ff_dropout=0.1,
          attn_dropout=0.1)),
    ("linear_attention_transformer.LinearAttentionTransformerLM", "tokens", _EVERY,
     dict(num_tokens=40, dim=16, heads=2, depth=1, max_seq_len=16, ff_dropout=0.1,
          attn_dropout=0.1)),
    ("local_attention.LocalTransformer", "tokens", _EVERY,
     dict(num_tokens=40, dim=16, depth=1, heads=2, max_seq_len=16, local_attn_window_size=4,
          attn_dropout=0.1, ff_dropout=0.1)),
    ("sinkhorn_transformer.SinkhornTransformerLM", "tokens", _EVERY,
     dict(num_tokens=40, dim=16, heads=2, depth=1, max_seq_len=16, bucket_size=4, ff_dropout=0.1)),
    ("conformer.ConformerBlock", "sequence", _LAST,
     dict(dim=16, dim_head=8, heads=2, attn_dropout=0.1, ff_dropout=0.1, conv_dropout=0.1)),
    ("conformer.Conformer", "sequence", _LAST,
     dict(dim=16, depth=1, dim_head=8, heads=2, attn_dropout=0.1, ff_dropout=0.1)),
    ("nystrom_attention.Nystromformer", "sequence", _LAST,
     dict(dim=16, dim_head=8, heads=2, depth=1, num_landmarks=4, attn_dropout=0.1,
          ff_dropout=0.1)),
    ("iTransformer.iTransformer", "sequence", {**_LAST, "output_name": 8},
     dict(num_variates=16, lookback_len=16, dim=16, depth=1, heads=2, dim_head=8,
          pred_length=(8,), **_TWO)),
    ("tab_transformer_pytorch.TabTransformer", "table", _CLASSES,
     dict(categories=(5, 5), num_continuous=4, dim=8, dim_out=C, depth=1, heads=2, **_TWO,
          mlp_act=nn.ReLU())),
    ("tab_transformer_pytorch.FTTransformer", "both", _CLASSES,
     dict(categories=(5, 5), num_continuous=4, dim=8, dim_out=C, depth=1, heads=2, **_TWO)),
    ("soft_moe_pytorch.SoftMoE", "sequence", _LAST,
     dict(dim=16, seq_len=16, num_experts=2, dropout=0.1)),
    ("monai.networks.nets.UNet", "image", _MAP,
     dict(**_2D, out_channels=C, channels=(4, 8), strides=(2,), dropout=0.1)),
    ("monai.networks.nets.AttentionUnet", "image", _MAP,
     dict(**_2D, out_channels=C, channels=(4, 8), strides=(2,), dropout=0.1)),
    ("monai.networks.nets.BasicUNet", "image", _MAP,
     dict(**_2D, out_channels=C, features=(4, 4, 8, 8, 8, 4), dropout=0.1)),
    ("monai.networks.nets.SegResNet", "image", _MAP,
     dict(**_2D, out_channels=C, init_filters=8, blocks_down=(1, 1), blocks_up=(1,),
          dropout_prob=0.1)),
    ("monai.networks.nets.UNETR", "volume", _MAP,
     dict(in_channels=1, out_channels=C, img_size=16, feature_size=4, hidden_size=12, mlp_dim=16,
          num_heads=2, dropout_rate=0.1)),
    ("monai.networks.nets.ViT", "image", {"output_name": 0},
     dict(**_2D, img_size=32, patch_size=8, hidden_size=16, mlp_dim=24, num_layers=2, num_heads=2,
          classification=True, num_classes=C, dropout_rate=0.1, post_activation="")),
    ("monai.networks.nets.DenseNet", "image", _CLASSES,
     dict(**_2D, out_channels=C, init_features=8, growth_rate=4, block_config=(1, 1),
          dropout_prob=0.1)),
    ("monai.networks.nets.VNet", "volume", _MAP,
     dict(spatial_dims=3, in_channels=1, out_channels=C, dropout_prob_down=0.2)),
    ("monai.networks.nets.DynUNet", "image", _MAP,
     dict(**_2D, out_channels=C, kernel_size=[3, 3, 3], strides=[1, 2, 2],
          upsample_kernel_size=[2, 2], filters=[4, 8, 8], dropout=0.1)),
    ("monai.networks.nets.FullyConnectedNet", "features", _CLASSES,
     dict(in_channels=8, out_channels=C, hidden_channels=[8, 8], dropout=0.2)),
    ("torchfm.model.dfm.DeepFactorizationMachineModel", "fields", _NUMBERS,
     dict(**_FM, mlp_dims=(8,), dropout=0.2)),
    ("torchfm.model.wd.WideAndDeepModel", "fields", _NUMBERS,
     dict(**_FM, mlp_dims=(8,), dropout=0.2)),
    ("torchfm.model.nfm.NeuralFactorizationMachineModel", "fields", _NUMBERS,
     dict(**_FM, mlp_dims=(8,), dropouts=(0.2, 0.2))),
    ("torchfm.model.xdfm.ExtremeDeepFactorizationMachineModel", "fields", _NUMBERS,
     dict(**_FM, mlp_dims=(8,), dropout=0.2, cross_layer_sizes=(4,), split_half=False)),
    ("torchfm.model.afi.AutomaticFeatureInteractionModel", "fields", _NUMBERS,
     dict(**_FM, atten_embed_dim=8, num_heads=2, num_layers=1, mlp_dims=(8,), dropouts=(0.2, 0.2))),
    ("torchfm.model.dcn.DeepCrossNetworkModel", "fields", _NUMBERS,
     dict(**_FM, num_layers=1, mlp_dims=(8,), dropout=0.2)),
    ("torchfm.model.pnn.ProductNeuralNetworkModel", "fields", _NUMBERS,
     dict(**_FM, mlp_dims=(8,), dropout=0.2)),
    ("torchvision.models.alexnet", "large", _CLASSES, dict(num_classes=C, dropout=0.3)),
    ("torchvision.models.squeezenet1_1", "large", _CLASSES, dict(num_classes=C)),
    ("torchvision.models.mobilenet_v2", "image", _CLASSES, dict(num_classes=C, width_mult=0.25)),
    ("torchvision.models.mobilenet_v3_small", "image", _CLASSES,
     dict(num_classes=C, width_mult=0.25)),
    ("torchvision.models.mnasnet0_5", "image", _CLASSES, dict(num_classes=C)),
    ("torchvision.models.densenet121", "image", _CLASSES, dict(num_classes=C, drop_rate=0.1)),
    ("pytorch_tcn.TCN", "channels", {**_NUMBERS, "output_axis": 1},
     dict(num_inputs=16, num_channels=[8, 8], dropout=0.1)),
    ("unet.UNet2D", "image", _MAP,
     dict(in_channels=3, out_classes=C, num_encoding_blocks=2, out_channels_first_layer=4,
          normalization="batch", padding=True, dropout=0.1)),
    ("diffusers.UNet2DModel", "noise", {**_FIRST, "output_name": "sample"},
     dict(sample_size=16, in_channels=3, out_channels=3, layers_per_block=1,
          block_out_channels=(8, 16), norm_num_groups=4, dropout=0.1, attention_head_dim=8,
          down_block_types=("DownBlock2D", "AttnDownBlock2D"),
          up_block_types=("AttnUpBlock2D", "UpBlock2D"))),
]  # fmt: skip
_SEVERAL: dict[str, Callable[[], dict[str, Tensor]]] = {
    "both": lambda: {
        "x_categ": torch.randint(0, 5, (ROWS, 2)),
        "x_numer": torch.randn(ROWS, 4),
    },
    "table": lambda: {
        "x_categ": torch.randint(0, 5, (ROWS, 2)),
        "x_cont": torch.randn(ROWS, 4),
    },
    "noise": lambda: {
        "sample": torch.randn(ROWS, 3, 16, 16),
        "timestep": torch.randint(0, 1000, (ROWS,)),
    },
}


def networks() -> dict[str, Build]:
    """What makes each network, by its package and name."""
    with torchvision():  # imported once, for all processes
        pass
    found: dict[str, Build] = {}
    for line in _LINES:
        package, _, rest = line[0].partition(".")
        module, _, kind = rest.rpartition(".")
        alike = any(other[0] != line[0] and other[0].endswith(f".{kind}") for other in _LINES)
        name = f"{module.rpartition('.')[2]}.{kind}" if alike and module else kind
        found[f"{package}:{name}"] = partial(_case, *line)
    found |= {name: partial(_built, build) for name, build in used.NETWORKS.items()}
    return {name: build for name, build in found.items() if find_spec(name.partition(":")[0])}


def _built(build: Build) -> Case:
    torch.manual_seed(0)
    with torchvision():
        return build()


def _case(path: str, inputs: str, terms: dict[str, Any], kwargs: dict[str, Any]) -> Case:
    torch.manual_seed(0)
    module, _, kind = path.rpartition(".")
    given = {key: value for key, value in kwargs.items() if value is not None}
    with torchvision():
        network: nn.Module = getattr(import_module(module), kind)(**given)
    if inputs in _SEVERAL:
        return Case(network, _SEVERAL[inputs](), terms)
    return Case(network, (_INPUTS[inputs](),), terms)
