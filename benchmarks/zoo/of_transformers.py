"""The networks of `transformers` with a head: their configurations, made small, with dropout on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import transformers as hf
from benchmarks.zoo.cases import Build, Case
from benchmarks.zoo.standing_in import torchvision
from torch import Tensor
from transformers.models.auto import modeling_auto

CLASSES, ROWS, VOCABULARY, LENGTH, SIDE, FRAMES = 3, 6, 60, 12, 32, 4
_HEADS = {
    "series": "TIME_SERIES_CLASSIFICATION",
    "video": "VIDEO_CLASSIFICATION",
    "audio": "AUDIO_CLASSIFICATION",
    "image": "IMAGE_CLASSIFICATION",
    "sequence": "SEQUENCE_CLASSIFICATION",
    "token": "TOKEN_CLASSIFICATION",
    "segmentation": "SEMANTIC_SEGMENTATION",
}
_SMALL: dict[str, object] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "d_embed", "projection_size"), 32),
    "pooler_hidden_size": 32,
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "num_blocks"),
        1,
    ),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), 1),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4
    ),
    **dict.fromkeys(("decoder_attention_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "dff"), 48
    ),
    **dict.fromkeys(("d_inner", "n_inner", "moe_intermediate_size"), 48),
    **dict.fromkeys(("vocab_size", "n_words"), VOCABULARY),
    **dict.fromkeys(("d_kv", "head_dim", "d_head"), 8),
    **dict.fromkeys(("image_size",), SIDE),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_frames", "frames_per_clip"), FRAMES),
    "max_position_embeddings": 64,
    "n_positions": 64,
    "patch_size": 8,
    "num_codevector_groups": 2,
    "use_cache": False,
    "use_mamba_kernels": False,
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 5),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "num_feat_extract_layers": 2,
    "classifier_proj_size": 16,
    "rotary_dim": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "max_source_positions": 64,
    "num_mel_bins": 16,
}
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
_SET = {  # the last hides input by arrays that NumPy draws
    **dict.fromkeys(("layerdrop", "encoder_layerdrop", "decoder_layerdrop"), 0.2),
    "apply_spec_augment": False,
}
_RATES = ("dropout", "drop_prob", "pdrop", "drop_path_rate", "stochastic_depth_prob")
_OF: dict[str, dict[str, object]] = {
    "swin": {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 16, "window_size": 2,
             "patch_size": 2},
    "swinv2": {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 16, "window_size": 2,
               "patch_size": 2},
    "donut-swin": {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 16, "window_size": 2,
                   "patch_size": 2},
    "dinat": {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 16, "patch_size": 4},
    "focalnet": {"depths": [2, 2], "embed_dim": 16, "patch_size": 2, "hidden_sizes": [16, 32],
                 "focal_levels": [2, 2], "focal_windows": [3, 3]},
    "hiera": {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "embed_dim": 8,
              "image_size": [64, 64]},
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 64,
                 "patch_size": 4},
    "convnextv2": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 64,
                   "patch_size": 4},
    "resnet": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "embedding_size": 8},
    "regnet": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "embedding_size": 8,
               "groups_width": 8},
    "bit": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "embedding_size": 8,
            "num_groups": 4},
    "funnel": {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "num_decoder_layers": 1},
    "reformer": {"attn_layers": ["local", "local"], "axial_pos_shape": (3, 4),
                 "axial_pos_embds_dim": (16, 16), "local_attn_chunk_length": 4,
                 "feed_forward_size": 32, "attention_head_size": 8},
    "beit": {"out_indices": [1, 2, 3, 4], "num_hidden_layers": 4},
    "data2vec-vision": {"out_indices": [1, 2, 3, 4], "num_hidden_layers": 4},
    "vjepa2": {"crop_size": SIDE, "pred_hidden_size": 24, "pred_num_hidden_layers": 1,
               "pred_num_attention_heads": 2, "num_pooler_layers": 1},
    "data2vec-audio": {"apply_spec_augment": False},
    "timesformer": {"num_frames": FRAMES},
    "vivit": {"tubelet_size": [2, 8, 8], "num_frames": FRAMES},
    "videomae": {"tubelet_size": 2, "num_frames": FRAMES},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 64,
               "downsampling_rate": 2, "upsampling_kernel_size": 3},
    "levit": {"hidden_sizes": [8, 16, 16], "num_attention_heads": [1, 2, 2], "depths": [1, 1, 1],
              "key_dim": [4, 4, 4]},
    "whisper": {"max_source_positions": 16, "num_mel_bins": 16, "encoder_layers": 2},
    "audio-spectrogram-transformer": {"max_length": 32, "num_mel_bins": 16, "patch_size": 8},
    "efficientnet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3,
                     "hidden_dim": 64},
    "mobilevit": {"image_size": 64, "patch_size": 2},
    "mobilevitv2": {"image_size": 64, "patch_size": 2},
    "imagegpt": {"n_positions": LENGTH},
    "perceiver": {"num_latents": 8, "d_latents": 16, "num_blocks": 1,
                  "num_self_attends_per_block": 1},
    "longformer": {"attention_window": 4},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "flaubert": {"emb_dim": 32},
    "transfo-xl": {},
    "layoutlmv3": {"input_size": SIDE, "coordinate_size": 8, "shape_size": 4},
    "lilt": {"channel_shrink_ratio": 2, "hidden_size": 24},
    "fnet": {"tpu_short_seq_length": LENGTH},
    "dpt": {"backbone_out_indices": [0, 1, 2, 3], "num_hidden_layers": 4, "is_hybrid": False,
            "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16},
    "gemma3_text": {"query_pre_attn_scalar": 8},
}  # fmt: skip
_NAMED = {
    "PatchTSTForClassification": "prediction_logits",
    "PatchTSMixerForTimeSeriesClassification": "prediction_outputs",
}


def networks() -> dict[str, Build]:
    """What makes each network, by a name with its head; the first of every architecture first."""
    first: dict[str, Build] = {}
    others: dict[str, Build] = {}
    seen = set[str]()
    with torchvision():  # imported once, for all processes
        pass
    for head, part in _HEADS.items():
        classes = getattr(modeling_auto, f"MODEL_FOR_{part}_MAPPING_NAMES")
        for kind, named in classes.items():
            name = named if isinstance(named, str) else named[0]
            into = others if kind in seen else first
            into[f"{head}:{name}"] = partial(_case, head, kind, name)
            seen.add(kind)
    return first | others


def _case(head: str, kind: str, name: str) -> Case:
    torch.manual_seed(0)
    config = hf.AutoConfig.for_model(kind)
    _shrink(config)
    for key, value in _OF.get(kind, {}).items():
        setattr(config, key, value)
    config.num_labels = config.num_targets = CLASSES
    config.pad_token_id = 1
    config.problem_type = None
    network = getattr(hf, name)(config)
    if head in ("sequence", "token"):
        inputs = _text(kind, config)
    elif head == "image" or head == "segmentation":
        inputs = _image(kind, config)
    elif head == "audio":
        inputs = _audio(kind, config)
    elif head == "series":
        channels = config.num_input_channels
        inputs = {"past_values": torch.randn(ROWS, config.context_length, channels)}
    else:
        size = getattr(config, "image_size", None) or config.crop_size
        side = size if isinstance(size, int) else size[0]
        frames = getattr(config, "num_frames", FRAMES)
        inputs = {"pixel_values": torch.randn(ROWS, frames, 3, side, side)}
        if kind == "vjepa2":
            inputs = {"pixel_values_videos": torch.randn(ROWS, FRAMES, 3, side, side)}
    terms: dict[str, object] = {"output_name": _NAMED.get(name, "logits")}
    if head == "token":
        terms["class_axis"] = -1
    if head == "segmentation":
        terms["class_axis"] = 1
    return Case(network, inputs, terms)


def _shrink(config: object) -> None:
    for key in list(vars(config)):
        value = getattr(config, key)
        if isinstance(value, hf.PreTrainedConfig):
            _shrink(value)
        elif key in ("depth", "depths") and isinstance(value, (list, tuple)):
            setattr(config, key, [1] * len(value))
        elif key in _SPECIAL:
            setattr(config, key, 1 if key == "pad_token_id" else 2)
        elif (
            key in _SMALL
            and value is not None
            and not (isinstance(value, (list, tuple)) and isinstance(_SMALL[key], int))
        ):
            setattr(config, key, _SMALL[key])
        elif isinstance(value, float) and value == 0 and any(rate in key for rate in _RATES):
            setattr(config, key, 0.1)
        elif key == "layer_types" and isinstance(value, (list, tuple)):
            setattr(config, key, list(dict.fromkeys(value)))
        elif key in _SET:
            setattr(config, key, _SET[key])
    if getattr(config, "layer_types", None):
        config.num_hidden_layers = len(config.layer_types)  # a layer of each kind


def _text(kind: str, config: hf.PreTrainedConfig) -> dict[str, Tensor]:
    """Token ids and a mask that hides the end of some rows; boxes and pictures where needed."""
    ends = torch.randint(4, LENGTH + 1, (ROWS, 1))
    mask = (torch.arange(LENGTH) < ends).long()
    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH))
    ids = torch.where(mask.bool(), ids, 1)
    ids = torch.where(torch.arange(LENGTH) == ends - 1, 2, ids)  # the end of a sequence, by its id
    inputs = {"input_ids": ids, "attention_mask": mask}
    if kind in ("layoutlm", "lilt", "layoutlmv3", "layoutlmv2"):
        corners = torch.randint(0, 500, (ROWS, LENGTH, 2))
        sizes = torch.randint(1, 500, (ROWS, LENGTH, 2))
        inputs["bbox"] = torch.cat([corners, corners + sizes], -1)
    if kind == "layoutlmv3":
        inputs["pixel_values"] = torch.randn(ROWS, 3, SIDE, SIDE)
    if kind == "bros":
        inputs["bbox"] = torch.rand(ROWS, LENGTH, 8)
    return inputs


def _image(kind: str, config: hf.PreTrainedConfig) -> dict[str, Tensor]:
    if kind == "imagegpt":
        return {"input_ids": torch.randint(0, VOCABULARY, (ROWS, LENGTH))}
    side = getattr(config, "image_size", None) or 64
    side = side if isinstance(side, int) else side[0]
    if kind == "perceiver":
        side = 224
    return {"pixel_values": torch.randn(ROWS, getattr(config, "num_channels", 3), side, side)}


_AUDIO: dict[str, Callable[[], dict[str, Tensor]]] = {
    "whisper": lambda: {"input_features": torch.randn(ROWS, 16, 32)},
    "audio-spectrogram-transformer": lambda: {"input_values": torch.randn(ROWS, 32, 16)},
    "wav2vec2-bert": lambda: {"input_features": torch.randn(ROWS, 20, 160)},
}


def _audio(kind: str, config: hf.PreTrainedConfig) -> dict[str, Tensor]:
    make = _AUDIO.get(kind)
    return make() if make else {"input_values": torch.randn(ROWS, 800)}
