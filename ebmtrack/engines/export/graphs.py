"""ONNX graphs of a tracker network, built node by node from its modules, so that no tracer is needed.

Every graph is float32 with the batch norms folded in; sides of images and maps are free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import ResNetTrunk
from ebmtrack.nets.efficientnet import EfficientNetLite, InvertedResidual
from ebmtrack.nets.residual import BasicBlock, Bottleneck
from ebmtrack.nets.tracker_net import TrackerNet

OPSET = 17
LIMITS_OF_RELU6 = (("zero", 0.0), ("six", 6.0))
IR_VERSION = 8  # of ONNX 1.12 and ONNX Runtime 1.13, the first with opset 17


Shapes: TypeAlias = Mapping[str, Sequence[int | str]]
"""Shapes by name; a free side is a text."""


class GraphBuilder:
    """A list of nodes and weights that becomes an ONNX model; each method adds a node and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes) -> str:
        """Add a node of one output, named by its number unless `name` is given."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def constant(self, value: Tensor | np.ndarray) -> str:
        """Add a weight."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolve(self, x: str, layer: nn.Conv2d, padding: Sequence[int] | None = None, name: str | None = None) -> str:
        """Add a convolution, with the layer's padding (y, x) or another."""
        pads = list(padding or layer.padding) * 2
        inputs = [x, self.constant(layer.weight)] + ([] if layer.bias is None else [self.constant(layer.bias)])
        shape = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": pads}
        return self.add("Conv", *inputs, name=name, group=layer.groups, **shape)

    def relu6(self, x: str) -> str:
        """Add a ReLU that ends at 6."""
        if "six" not in (weight.name for weight in self.weights):
            self.weights += [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in LIMITS_OF_RELU6]
        return self.add("Clip", x, "zero", "six")

    def residual(self, x: str, block: Any) -> str:
        """Add a residual block with folded batch norms."""
        if isinstance(block, InvertedResidual):
            y = self.relu6(self.convolve(x, block.conv1)) if block.expands else x
            y = self.convolve(self.relu6(self.convolve(y, block.conv2)), block.conv3)
            return self.add("Add", x, y) if block.has_shortcut else y
        if not isinstance(block, BasicBlock | Bottleneck):
            raise TypeError(f"cannot export a {type(block).__name__}")
        layers = [block.conv1, block.conv2] + ([block.conv3] if isinstance(block, Bottleneck) else [])
        y = x
        for layer in layers[:-1]:
            y = self.add("Relu", self.convolve(y, layer))
        y = self.convolve(y, layers[-1])
        shortcut = x if block.downsample is None else self.convolve(x, cast(nn.Conv2d, block.downsample[0]))
        return self.add("Relu", self.add("Add", y, shortcut))

    def model(self, inputs: Shapes, outputs: Shapes) -> onnx.ModelProto:
        """Return the checked model; shapes by name, free sides as texts."""
        ends = (_ports(inputs), _ports(outputs))
        graph = helper.make_graph(self.nodes, "ebmtrack", ends[0], ends[1], initializer=self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ebmtrack")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model


def _ports(shapes: Shapes) -> list[onnx.ValueInfoProto]:
    """Return the inputs or outputs of a graph."""
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()]


def network_graphs(net: TrackerNet) -> dict[str, onnx.ModelProto]:
    """Return the graphs of a network whose batch norms are folded, by file name."""
    box, (c2, c3) = _as_any(net.bb_regressor), net.feature_extractor.channels
    return {
        "look.onnx": look_graph(net),
        "reference.onnx": reference_graph(net),
        "initializer.onnx": initializer_graph(net.classifier.filter_initializer.filter_conv),
        "boxes8.onnx": box_graph(box.conv3_1t[0], box.conv3_2t[0], c2),
        "boxes16.onnx": box_graph(box.conv4_1t[0], box.conv4_2t[0], c3),
    }


def _as_any(module: nn.Module) -> Any:
    """Return a module whose parts torch's stubs call `Tensor | Module`."""
    return module


def look_graph(net: TrackerNet) -> onnx.ModelProto:
    """Return patches (n, h, w, 3), RGB 0..255 -> layer2, layer3, and classification features before normalisation."""
    build, trunk = GraphBuilder(), _as_any(net.feature_extractor)
    classifier = list(_as_any(net.classifier.feature_extractor))
    values = (trunk.image_mean, trunk.image_std)
    mean, std = (255 * np.array(value, np.float32).reshape(1, 3, 1, 1) for value in values)
    x = build.add("Transpose", "patches", perm=(0, 3, 1, 2))
    x = build.add("Div", build.add("Sub", x, build.constant(mean)), build.constant(std))
    layer2, layer3 = _trunk(build, x, trunk)
    y = _stage(build, layer3, classifier[:-1])
    build.convolve(y, classifier[-1], name="features")
    for name, value in (("layer2", layer2), ("layer3", layer3)):
        build.add("Identity", value, name=name)
    c2, c3 = trunk.channels
    outputs = {
        "layer2": ("n", c2, "h8", "w8"),
        "layer3": ("n", c3, "h16", "w16"),
        "features": ("n", net.config.classifier_channels, "h16", "w16"),
    }
    return build.model({"patches": ("n", "h", "w", 3)}, outputs)


def _trunk(build: GraphBuilder, x: str, trunk: nn.Module) -> tuple[str, str]:
    """Add the trunk; return layer2 and layer3."""
    if isinstance(trunk, EfficientNetLite):
        x = build.relu6(build.convolve(x, trunk.conv1))
        layer2 = _stage(build, x, trunk.blocks[: trunk.layer2_blocks])
        return layer2, _stage(build, layer2, trunk.blocks[trunk.layer2_blocks :])
    if not isinstance(trunk, ResNetTrunk):
        raise ConfigError(f"cannot export a {type(trunk).__name__}: only those of ResNet and EfficientNet-Lite are")
    x = build.add("Relu", build.convolve(x, trunk.conv1))
    x = build.add("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    layer2 = _stage(build, _stage(build, x, trunk.layer1), trunk.layer2)
    return layer2, _stage(build, layer2, trunk.layer3)


def _stage(build: GraphBuilder, x: str, blocks: Iterable[nn.Module]) -> str:
    """Add residual blocks."""
    for block in blocks:
        x = build.residual(x, block)
    return x


def reference_graph(net: TrackerNet) -> onnx.ModelProto:
    """Return layer2, layer3 -> the reference branch's features at strides 8 and 16."""
    build, box, (c2, c3) = GraphBuilder(), _as_any(net.bb_regressor), net.feature_extractor.channels
    build.add("Relu", build.convolve("layer2", box.conv3_1r[0]), name="reference8")
    build.add("Relu", build.convolve("layer3", box.conv4_1r[0]), name="reference16")
    widths = (box.conv3_1r[0].out_channels, box.conv4_1r[0].out_channels)
    outputs = {"reference8": (1, widths[0], "h8", "w8"), "reference16": (1, widths[1], "h16", "w16")}
    return build.model({"layer2": (1, c2, "h8", "w8"), "layer3": (1, c3, "h16", "w16")}, outputs)


def initializer_graph(convolution: nn.Conv2d) -> onnx.ModelProto:
    """Return classification features -> the features that the filter initialiser pools."""
    build, c = GraphBuilder(), convolution.in_channels
    build.convolve("features", convolution, name="initial")
    return build.model({"features": ("n", c, "h", "w")}, {"initial": ("n", convolution.out_channels, "h", "w")})


def box_graph(first: nn.Conv2d, second: nn.Conv2d, channels: int) -> onnx.ModelProto:
    """Return a cut of a layer, two cells larger on each side, -> box features (1, h, w, 256), channels last.

    The mask is 0 for cells outside of the map, where the second convolution must see zeros.
    """
    build = GraphBuilder()
    y = build.add("Relu", build.convolve("cut", first, padding=(0, 0)))
    y = build.add("Relu", build.convolve(build.add("Mul", y, "mask"), second, padding=(0, 0)))
    build.add("Transpose", y, name="box_features", perm=(0, 2, 3, 1))
    inputs = {"cut": (1, channels, "h4", "w4"), "mask": (1, 1, "h2", "w2")}
    return build.model(inputs, {"box_features": (1, "h", "w", second.out_channels)})


def network_arrays(net: TrackerNet) -> dict[str, np.ndarray]:
    """Return what the engine computes in NumPy: modulation, energy head and filter optimiser, float32."""
    box, optimizer = _as_any(net.bb_regressor), _as_any(net.classifier.filter_optimizer)
    tensors = {
        "reference/fc3_weight": box.fc3_1r[0].weight.flatten(1),
        "reference/fc3_bias": box.fc3_1r[0].bias,
        "energy/out": box.iou_predictor.weight[0],
        "energy/out_bias": box.iou_predictor.bias,
        "optimizer/log_step_length": optimizer.log_step_length,
        "optimizer/filter_reg": optimizer.filter_reg,
    }
    levels = (("8", 5, box.fc3_rt, box.fc34_3r), ("16", 3, box.fc4_rt, box.fc34_4r))
    for name, bins, block, reference in levels:
        tensors[f"reference/w{name}"] = reference[0].weight.flatten(1)
        tensors[f"reference/b{name}"] = reference[0].bias
        weight = block.linear.weight.unflatten(1, (-1, bins, bins))
        tensors[f"energy/w{name}"] = weight.permute(2, 3, 1, 0).flatten(0, 1)  # (s s, c, 256)
        tensors[f"energy/b{name}"] = block.linear.bias
    if net.config.filter_optimizer == "dimp":
        tensors["optimizer/label"] = optimizer.label_map_predictor.weight.flatten()
        tensors["optimizer/mask"] = optimizer.target_mask_predictor[0].weight.flatten()
        tensors["optimizer/weight"] = optimizer.spatial_weight_predictor.weight.flatten()
    return {name: np.ascontiguousarray(value.detach().float().numpy()) for name, value in tensors.items()}
