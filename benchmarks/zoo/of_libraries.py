"""Objects that other libraries make around a network, or ship as one, small and with dropout on.

A network is left out where its package is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
import transformers as hf
from benchmarks.zoo.cases import Build, Case
from benchmarks.zoo.standing_in import torchvision
from torch import Tensor, nn

CLASSES, ROWS = 3, 6


def networks() -> dict[str, Build]:
    """What makes each network, by its package and name."""
    return {
        f"{package}:{name}": partial(_case, build)
        for (package, name), build in _NETWORKS.items()
        if find_spec(package) is not None
    }


def _case(build: Build) -> Case:
    torch.manual_seed(0)
    with torchvision():
        return build()


def _reader() -> nn.Module:
    config = hf.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, num_labels=CLASSES, max_position_embeddings=32,
    )  # fmt: skip
    return hf.BertForSequenceClassification(config)


def _tokens() -> dict[str, Tensor]:
    mask = (torch.arange(7) < torch.randint(3, 8, (ROWS, 1))).long()
    return {"input_ids": torch.randint(3, 40, (ROWS, 7)), "attention_mask": mask}


def _read(wrap: Callable[[nn.Module], nn.Module]) -> Case:
    return Case(wrap(_reader()), _tokens(), {"output_name": "logits"})


def _trained() -> Case:
    """A Lightning module after an epoch, with its trainer attached."""
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(
                nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    network = Lit()
    rows = torch.utils.data.TensorDataset(torch.randn(16, 8), torch.randint(0, CLASSES, (16,)))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet
    )
    trainer.fit(network, torch.utils.data.DataLoader(rows, batch_size=8))
    return Case(network, {"x": torch.randn(ROWS, 8)})


def _adapted(network: nn.Module) -> nn.Module:
    import peft

    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        lora_dropout=0.1,
        target_modules=["query", "value"],
        init_lora_weights=False,
    )
    return peft.get_peft_model(network, config)


def _deep() -> Case:
    """torch's own encoder with 12 layers, whose times the README states."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 12)
            self.head = nn.Linear(32, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x).mean(1))

    return Case(Encoder(), {"x": torch.randn(ROWS, 16, 32)})


def _segmenting(name: str) -> Case:
    import segmentation_models_pytorch as smp

    kwargs = {"decoder_dropout": 0.2} if name == "FPN" else {}
    network = getattr(smp, name)("resnet18", encoder_weights=None, classes=CLASSES, **kwargs)
    network.segmentation_head.insert(0, nn.Dropout2d(0.2))
    return Case(network, {"x": torch.randn(ROWS, 3, 64, 64)}, {"class_axis": 1})


def _tabular(name: str) -> Case:
    import rtdl_revisiting_models as rtdl

    if name == "MLP":
        network = rtdl.MLP(d_in=4, d_out=CLASSES, n_blocks=2, d_block=16, dropout=0.2)
        return Case(network, {"x": torch.randn(ROWS, 4)})
    if name == "ResNet":
        network = rtdl.ResNet(
            d_in=4, d_out=CLASSES, n_blocks=1, d_block=16, d_hidden=24, d_hidden_multiplier=None,
            dropout1=0.2, dropout2=0.1,
        )  # fmt: skip
        return Case(network, {"x": torch.randn(ROWS, 4)})
    network = rtdl.FTTransformer(
        n_cont_features=4, cat_cardinalities=[3], d_out=CLASSES, n_blocks=1, d_block=8,
        attention_n_heads=2, attention_dropout=0.1, ffn_d_hidden=16, ffn_d_hidden_multiplier=None,
        ffn_dropout=0.1, residual_dropout=0.1,
    )  # fmt: skip
    numbers, kinds = torch.randn(ROWS, 4), torch.arange(ROWS)[:, None] % 3
    return Case(network, {"x_cont": numbers, "x_cat": kinds})


_NETWORKS: dict[tuple[str, str], Build] = {
    ("lightning", "LightningModule"): _trained,
    ("peft", "LoRA of BERT"): partial(_read, _adapted),
    ("torch", "DataParallel of BERT"): partial(_read, nn.DataParallel),
    ("torch", "TransformerEncoder of 12 layers"): _deep,
    **{
        ("segmentation_models_pytorch", name): partial(_segmenting, name)
        for name in ("Unet", "FPN", "DeepLabV3Plus")
    },
    **{
        ("rtdl_revisiting_models", name): partial(_tabular, name)
        for name in ("MLP", "ResNet", "FTTransformer")
    },
}
