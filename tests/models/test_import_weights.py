"""Checkpoints of AdaFace, CVLface and arcface_torch: same outputs as their networks, written once more here."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

from facenas.models.import_weights import Foreign, load_foreign

IMAGES = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(5)) * 2 - 1
SMALL = (1, 2, 1, 1)


class AdaFaceBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int, se: bool) -> None:
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride)
        if before != after:
            projection = nn.Conv2d(before, after, (1, 1), stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, nn.BatchNorm2d(after))
        convolutions = (
            nn.Conv2d(before, after, (3, 3), (1, 1), 1, bias=False),
            nn.Conv2d(after, after, (3, 3), stride, 1, bias=False),
        )
        norms = nn.BatchNorm2d(before), nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.res_layer = nn.Sequential(
            norms[0], convolutions[0], norms[1], nn.PReLU(after), convolutions[1], norms[2]
        )
        if se:
            self.res_layer.add_module("se_block", Gate(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * self.fc2(self.fc1(pooled).clamp(min=0)).sigmoid()


class AdaFaceNet(nn.Module):
    def __init__(self, width: int, units: tuple[int, ...], embedding: int, se: bool = False) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, (3, 3), 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        blocks, before = [], width
        for stage, count in enumerate(units):
            for i in range(count):
                blocks.append(AdaFaceBlock(before, width << stage, 1 + (i == 0), se))
                before = width << stage
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(before * 49, embedding),
            nn.BatchNorm1d(embedding, affine=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


class InsightBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, 1, 1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(after), nn.PReLU(after)
        self.conv2, self.bn3 = (
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        if stride == 2:
            projection = nn.Conv2d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))) + shortcut


class InsightNet(nn.Module):
    def __init__(self, width: int, units: tuple[int, ...], embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(width), nn.PReLU(width)
        before = width
        for stage, count in enumerate(units):
            after = width << stage
            blocks = [InsightBlock(before, after, 2)]
            blocks += [InsightBlock(after, after, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            before = after
        self.bn2, self.fc = nn.BatchNorm2d(before), nn.Linear(before * 49, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def trained(network: nn.Module, insight: bool = False) -> nn.Module:
    """No tensor is all ones or zeros any more, but for the one that the peer never changes."""
    drawn = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.dim() == 1 and not (insight and name == "features.weight"):
            value.add_(torch.rand(value.shape, generator=drawn), alpha=0.1)
    return network.eval()


def z_of(foreign: Foreign) -> torch.Tensor:
    network = foreign.architecture.build(0)
    network.load_state_dict(foreign.backbone)
    with torch.inference_mode():
        return network.eval()(IMAGES)


def expected(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(images)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def lightning(network: nn.Module, identities: int = 7, **more: object) -> dict[str, object]:
    """What Lightning saves of AdaFace's module."""
    state = {f"model.{k}": v for k, v in network.state_dict().items()}
    state["head.kernel"] = torch.rand(network.output_layer[3].out_features, identities)
    state.update({"head.t": torch.zeros(1), "head.batch_mean": torch.ones(1) * 20})
    state["head.batch_std"] = torch.ones(1) * 100
    return {"epoch": 25, "global_step": 9, "state_dict": state, **more}


@pytest.mark.parametrize("se", [False, True])
def test_adaface(tmp_path, se):
    network = trained(AdaFaceNet(16, SMALL, 8, se))
    saved = lightning(network)
    torch.save(saved, tmp_path / "adaface.ckpt")
    foreign = load_foreign(tmp_path / "adaface.ckpt")
    arch = foreign.architecture
    assert (arch.width, arch.stages, arch.embedding, arch.se) == (16, SMALL, 8, se)
    assert (foreign.color, arch.project_first) == ("BGR", False)
    assert torch.equal(foreign.kernel, saved["state_dict"]["head.kernel"])
    close(z_of(foreign), expected(network, IMAGES.flip(1)))  # theirs takes BGR, ours RGB


@pytest.mark.parametrize("units", [(2, 2, 2, 2), (3, 4, 14, 3)], ids=["ir18", "ir50"])
def test_adaface_at_its_published_sizes(tmp_path, units):
    network = trained(AdaFaceNet(64, units, 512))
    torch.save(lightning(network), tmp_path / "adaface.ckpt")
    foreign = load_foreign(tmp_path / "adaface.ckpt")
    assert len(foreign.backbone) == {8: 179, 24: 467}[sum(units)]
    close(z_of(foreign), expected(network, IMAGES.flip(1)))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("prefix", ["net.", "model.net."])
def test_cvlface(tmp_path, name, prefix):
    network = trained(AdaFaceNet(8, SMALL, 8))
    state = {f"{prefix}{k}": v for k, v in network.state_dict().items()}
    save = safetensors.torch.save_file if name.endswith("s") else torch.save
    save(state, tmp_path / name)
    foreign = load_foreign(tmp_path / name)
    assert (foreign.color, foreign.kernel) == ("RGB", None)
    close(z_of(foreign), expected(network, IMAGES))


def test_cvlface_whose_settings_flip_the_input(tmp_path):
    network = trained(AdaFaceNet(8, SMALL, 8))
    torch.save({f"net.{k}": v for k, v in network.state_dict().items()}, tmp_path / "model.pt")
    (tmp_path / "model.yaml").write_text("name: ir18\ncolor_space: BGR\n")
    foreign = load_foreign(tmp_path / "model.pt")
    assert foreign.color == "BGR"
    close(z_of(foreign), expected(network, IMAGES.flip(1)))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_arcface_torch(tmp_path, prefix):
    network = trained(InsightNet(8, (1, 2, 11, 1), 8), insight=True)
    torch.save({prefix + k: v for k, v in network.state_dict().items()}, tmp_path / "backbone.pt")
    foreign = load_foreign(tmp_path / "backbone.pt")
    arch = foreign.architecture
    assert (arch.stages, arch.project_first, foreign.color) == ((1, 2, 11, 1), True, "RGB")
    close(z_of(foreign), expected(network, IMAGES))


def test_arcface_torch_at_its_published_size(tmp_path):
    network = trained(InsightNet(64, (2, 2, 2, 2), 512), insight=True)
    assert sum(p.numel() for p in network.parameters()) == 24_025_600
    torch.save(network.state_dict(), tmp_path / "backbone.pt")
    foreign = load_foreign(tmp_path / "backbone.pt")
    close(z_of(foreign), expected(network, IMAGES))


def test_half_precision_becomes_float32(tmp_path):
    network = trained(AdaFaceNet(8, SMALL, 8))
    torch.save(lightning(network.half()), tmp_path / "adaface.ckpt")
    foreign = load_foreign(tmp_path / "adaface.ckpt")
    kinds = {v.dtype for k, v in foreign.backbone.items() if "num_batches" not in k}
    assert kinds == {foreign.kernel.dtype} == {torch.float32}
