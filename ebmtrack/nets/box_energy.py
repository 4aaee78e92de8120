"""The modulated box energy f(x, y): an IoU-Net layout whose score is read as the energy of a box.

Source: Danelljan et al., "ATOM", CVPR 2019, section 3.2 (layout); Gustafsson et al., ECCV 2020, section 4.2, and BMVC
2020, section 5 (read as the energy of p(y|x)). State-dict names are pytracking's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmtrack.nets.roi_pool import precise_roi_pool, precise_roi_pool_rows

POOL = ((5, 1 / 8), (3, 1 / 16))  # bins per axis and spatial scale of the two branches of a candidate box


def _conv(cin: int, cout: int, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    """Return a convolution with bias, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, padding=padding), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


class LinearBlock(nn.Module):
    """Linear layer, batch norm and ReLU on flattened pooled features (R, c, s, s) -> (R, out)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, pooled: Tensor) -> Tensor:
        x = self.linear(pooled.flatten(1))
        return self.relu(self.bn(x[:, :, None, None]))[:, :, 0, 0]

    def forward_rows(self, rows: Tensor, bins: int) -> Tensor:
        """Apply the block to rows (R, bins * bins * c) whose channels come last (`precise_roi_pool_rows`)."""
        out, inputs = self.linear.weight.shape
        weight = self.linear.weight.view(out, inputs // bins**2, bins**2).transpose(1, 2).reshape(out, inputs)
        x = nn.functional.linear(rows, weight, self.linear.bias)
        return self.relu(self.bn(x[:, :, None, None]))[:, :, 0, 0]


class BoxEnergy(nn.Module):
    """Energies of boxes in a test image, modulated by the target's look in a reference image."""

    def __init__(self, channels: tuple[int, int], width: int = 256):
        """channels: of layer2 and layer3. width: of the box features and hidden layers; only 256 fits checkpoints."""
        super().__init__()
        self.dropout = 0.0  # of the last hidden layer, in training
        c2, c3 = channels
        self.conv3_1r, self.conv3_1t = _conv(c2, width // 2), _conv(c2, width)
        self.conv3_2t, self.fc3_1r = _conv(width, width), _conv(width // 2, width, padding=0)
        self.conv4_1r, self.conv4_1t, self.conv4_2t = _conv(c3, width), _conv(c3, width), _conv(width, width)
        self.fc34_3r, self.fc34_4r = (_conv(2 * width, width, 1, padding=0) for _ in range(2))
        self.fc3_rt, self.fc4_rt = LinearBlock(width * 5 * 5, width), LinearBlock(width * 3 * 3, width)
        self.iou_predictor = nn.Linear(2 * width, 1)
        self.apply(_initialize)

    def modulation(self, layer2: Tensor, layer3: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Return two modulation vectors (S, 256) of reference features (S, c, h, w) and boxes (S, 4) in crop pixels."""
        return self.modulation_of(self.conv3_1r(layer2), self.conv4_1r(layer3), boxes_xyxy)

    def modulation_of(self, reference3: Tensor, reference4: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Return `modulation` from the reference branch's own features (S, 128, h, w) and (S, 256, h, w)."""
        pooled3 = precise_roi_pool(reference3, boxes_xyxy[:, None], 3, 1 / 8)[:, 0]
        pooled4 = precise_roi_pool(reference4, boxes_xyxy[:, None], 1, 1 / 16)[:, 0]
        joined = torch.cat([self.fc3_1r(pooled3), pooled4], dim=1)  # (S, 512, 1, 1)
        return self.fc34_3r(joined)[..., 0, 0], self.fc34_4r(joined)[..., 0, 0]

    def features(self, layer2: Tensor, layer3: Tensor) -> tuple[Tensor, Tensor]:
        """Return box features (N, 256, H/8, W/8) and (N, 256, H/16, W/16) of test images."""
        return self.conv3_2t(self.conv3_1t(layer2)), self.conv4_2t(self.conv4_1t(layer3))

    def forward(self, modulation: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], boxes_xyxy: Tensor) -> Tensor:
        """Return energies (N, P) of boxes (N, P, 4) in crop pixels; modulation (N, 256), features of N images."""
        joined = nn.functional.dropout(self.hidden(modulation, features, boxes_xyxy), self.dropout, self.training)
        return self.iou_predictor(joined)[..., 0]

    def hidden(self, modulation: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], boxes_xyxy: Tensor) -> Tensor:
        """Return the last hidden layer (N, P, 512) of boxes; arguments as for `forward`."""
        hidden = []
        for block, vector, feature, (bins, scale) in zip((self.fc3_rt, self.fc4_rt), modulation, features, POOL):
            modulated = feature * vector[..., None, None]
            if boxes_xyxy.requires_grad:
                hidden.append(block(precise_roi_pool(modulated, boxes_xyxy, bins, scale).flatten(0, 1)))
            else:
                rows = precise_roi_pool_rows(modulated, boxes_xyxy, bins, scale)
                hidden.append(block.forward_rows(rows.flatten(0, 1), bins))
        return torch.cat(hidden, dim=1).unflatten(0, boxes_xyxy.shape[:2])


def _initialize(module: nn.Module) -> None:
    """Draw Kaiming normal weights, zero biases, and batch norm weights drawn from U(0, 1) (ATOM's choice)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight)
        nn.init.zeros_(module.bias)
