"""ArcFace's LResNet100E-IR under MXNet's layer names, as papermsucode/2020bboxrestoration has it (MIT licence).

Razzhigaev et al., "Black-box face recovery from identity features", ECCV-W 2020: `torchtest.pt` is the state dict of
insightface's first public ArcFace model (Deng et al., CVPR 2019), converted from MXNet.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
UNITS_100 = (3, 13, 30, 3)
EPSILON = 2e-5  # MXNet's


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class LResNet100(nn.Module):
    """112x112 RGB crops to ID vectors. Names are flat (`stage3_unit7_conv1`), so units are methods, not modules.

    Args:
        units: Residual units per stage; the published weights have the default.
    """

    def __init__(self, units: tuple[int, ...] = UNITS_100) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn0 = _norm(64)
        self.relu0 = nn.PReLU(64)
        self._units: list[str] = []
        inside = 64
        for stage, (width, count) in enumerate(zip(WIDTHS, units, strict=True), start=1):
            for unit in range(1, count + 1):
                self._add_unit(f"stage{stage}_unit{unit}", inside, width, first=unit == 1)
                inside = width
        self.bn1 = _norm(512)
        self.pre_fc1 = nn.Linear(512 * 7 * 7, 512)
        self.fc1 = nn.BatchNorm1d(512, eps=EPSILON)

    def _add_unit(self, name: str, inside: int, width: int, first: bool) -> None:
        stride = 2 if first else 1
        layers = {
            "bn1": _norm(inside),
            "conv1": nn.Conv2d(inside, width, 3, 1, 1, bias=False),
            "bn2": _norm(width),
            "relu1": nn.PReLU(width),
            "conv2": nn.Conv2d(width, width, 3, stride, 1, bias=False),
            "bn3": _norm(width),
        }
        if first:
            layers |= {"conv1sc": nn.Conv2d(inside, width, 1, stride, bias=False), "sc": _norm(width)}
        for layer, module in layers.items():
            self.add_module(f"{name}_{layer}", module)
        self._units.append(name)

    def _unit(self, name: str, x: Tensor) -> Tensor:
        def layer(kind: str, value: Tensor) -> Tensor:
            result: Tensor = self.get_submodule(f"{name}_{kind}")(value)
            return result

        y = x
        for kind in ("bn1", "conv1", "bn2", "relu1", "conv2", "bn3"):
            y = layer(kind, y)
        return y + (layer("sc", layer("conv1sc", x)) if hasattr(self, f"{name}_conv1sc") else x)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, 3, 112, 112], RGB in [-1, 1], to float32 [N, 512], not normalised."""
        x = self.relu0(self.bn0(self.conv0(x)))
        for name in self._units:
            x = self._unit(name, x)
        y: Tensor = self.fc1(self.pre_fc1(self.bn1(x).flatten(1)))
        return y
