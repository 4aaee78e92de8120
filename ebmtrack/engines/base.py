"""The protocol between the online tracker and a network.

The tracker (`ebmtrack.tracking`) knows images, boxes, verdicts and when to learn. An engine knows one network: it turns
search regions into features and score maps, lets boxes climb the energy, and learns the filter. Everything that crosses
the border is a NumPy array, a number or an opaque handle. A handle may own memory on any device; the tracker stores it,
hands it back to the engine that made it, copies it with `copy.deepcopy`, and never looks inside.

Conventions at the border:

- Patches are RGB with values 0..255, (side, side, 3). They may have any strides.
- Boxes are float32 in pixels of the whole search region's patch ("crop pixels"): x to the right, y down, the patch
  covers 0..side, so that the centre of its first pixel is at 0.5. `boxes_xyxy` is (x0, y0, x1, y1), `boxes_xywh` is
  (x0, y0, x1 - x0, y1 - y0). Boxes may leave the patch; an engine accepts any numbers, NaN and infinity included.
- A cell is `info.stride` crop pixels. Cell (0, 0) of a score map of n x n cells is at -(n - 1) / 2 cells from the
  region's centre, in y and in x. An even filter on h x w feature cells gives (h + 1) x (w + 1) scores. ATOM's
  map is interpolated: n is the patch's side, and its scores are a pixel apart.
- Engines draw no random numbers. The tracker draws them all, so that every engine gets the same ones.
- The same inputs give the same outputs to the bit on the same machine, and what an engine returns for one target does
  not depend on the other targets in the call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np

from ebmtrack.errors import CheckpointError, ConfigError

T = TypeVar("T")

TargetModel: TypeAlias = Any
"""The handle of what an engine learned about one target: modulation, filter and stored samples. The engine may change
it in `remember` and `learn`."""

RegionFeatures: TypeAlias = Any
"""The handle of what the network computed of one search region for one target. It never changes for the tracker; an
engine may fill caches in it."""

Mark: TypeAlias = Callable[[str], None]
"""Called with a stage's name when the stage is done; benchmarks measure with it."""


def no_mark(stage: str) -> None:
    """Ignore the end of a stage."""


@dataclasses.dataclass(frozen=True)
class TrainedOn:
    """The search regions of training.

    sample_size: side of a region's patch, pixels. search_factor: side of a region, in sizes of the target.
    """

    sample_size: int
    search_factor: float


def read_trained_on(settings: Mapping[str, Any]) -> TrainedOn | None:
    """Return the search regions that the settings in a file of weights name, or None if they name none.

    Args:
        settings: of a training run (`crops` with `output` and `search_factor`), or `sample_size` and `search_factor`.
    """
    crops = settings.get("crops", settings)
    values = [crops.get("output", crops.get("sample_size")), crops.get("search_factor")] if crops else []
    if len(values) != 2 or not all(isinstance(value, int | float) and value > 0 for value in values):
        return None
    return TrainedOn(int(values[0]), float(values[1]))


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """The facts of a network that the tracker needs.

    classifier: "dimp", "atom", or "prdimp", whose scores the tracker turns into probabilities by a softmax.
    channels: number of channels of the classification features.
    stride: crop pixels per cell of the classification features.
    device: the device's name, for reports ("cpu", "cuda:0", "openvino").
    precision: what it computes in, for reports ("float32", "bfloat16"; "int8+float32": the layers that are not
        quantised are in float32).
    trained_on: the search regions that it was trained on; None if its file does not say.
    source_sha256: of the network's tensors as its file of weights holds them, the same for an export in any precision;
        "" if the engine was made of no file.
    """

    classifier: str
    channels: int
    stride: int
    device: str
    precision: str
    trained_on: TrainedOn | None = None
    source_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class FirstFrame:
    """The training samples that the tracker draws from a target's first frame.

    patches: (n, side, side, 3) float32 RGB 0..255; the first one shows the target as it is, in the middle.
    boxes_xyxy: (n, 4) float32, the target in each patch; the first one is the box that the modulation is taken from.
    channel_factors: (copies, channels) float32. For each row the engine adds one sample: the normalised classification
        features of the first patch, every channel multiplied by its factor (dropout), with the first patch's box. They
        follow the n samples of the patches.
    iterations: steps of the filter optimiser, from the initialiser's filter, over all n + copies samples with equal
        weights.
    capacity: number of samples that the model must have room for, at least n + copies. The first frame's samples fill
        the slots from 0.
    regions: number of patches, from the first one on, whose features are wanted.
    """

    patches: np.ndarray
    boxes_xyxy: np.ndarray
    channel_factors: np.ndarray
    iterations: int
    capacity: int
    regions: int = 1


@dataclasses.dataclass(frozen=True)
class WholeLook:
    """A request to look at a whole search region with a target's filter.

    patch: (side, side, 3) uint8, or float32 RGB 0..255.
    """

    target: TargetModel
    patch: np.ndarray


@dataclasses.dataclass(frozen=True)
class InnerLook:
    """A request to look at the inner part of a search region with a target's filter; cheaper than a whole look.

    The engine pads all feature maps with zeros to the size that the whole region would have. It scales the
    classification features so that their mean square equals that of the cells of an earlier whole look that the inner
    part covers: the classifier normalises each image, and a target alone in sight would get other scores.

    patch: (side - 2 * stride * margin_cells, the same, 3) uint8, the middle of the whole region's patch.
    margin_cells: cells that the patch leaves out at each edge of the whole region, at least 1.
    whole: the features of an earlier whole look (or of the first frame) for this target, in a region of `side` pixels.
    """

    target: TargetModel
    patch: np.ndarray
    margin_cells: int
    whole: RegionFeatures


Look: TypeAlias = WholeLook | InnerLook


class Sight(NamedTuple):
    """The result of a look: the region's features and the filter's scores (h, w), float32, without softmax."""

    features: RegionFeatures
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class AspectPrior:
    """A log density of boxes' aspect ratios around that of an earlier box: p(y | x, y1) is in proportion to exp f p.

    log(w / h) minus its earlier value has Student's t distribution with two degrees of freedom, because most targets
    nearly keep their aspect ratio and a few change it much.

    log_aspect: (T,) log(w / h) of each target's earlier box, in crop pixels.
    scale: of the distribution, above 0.
    """

    log_aspect: np.ndarray
    scale: float

    def value(self, boxes_xywh: np.ndarray) -> np.ndarray:
        """Return the log density (T, R) of boxes (T, R, 4), up to a constant."""
        change = self._change(np.log(boxes_xywh[..., 2] / boxes_xywh[..., 3]))
        return -1.5 * np.log(1 + change**2 / 2)

    def gradient(self, log_aspect: np.ndarray) -> np.ndarray:
        """Return its derivative (T, R) by log(w / h), for boxes of log(w / h) (T, R)."""
        change = self._change(log_aspect)
        return -1.5 / self.scale * change / (1 + change**2 / 2)

    def _change(self, log_aspect: np.ndarray) -> np.ndarray:
        """Return how much log(w / h) has changed (T, R), in units of the scale."""
        return (log_aspect - self.log_aspect[:, None].astype(log_aspect.dtype)) / self.scale


@dataclasses.dataclass(frozen=True)
class Ascent:
    """The settings of a climb: `steps` gradient steps y <- y + v, v <- step * grad f(y) + momentum * v, from v = 0.

    Without momentum these are the papers' plain steps. Nothing is checked on the way.

    With relative_space, y = (cx / w0, cy / h0, log w, log h), where (w0, h0) is the size of the region's first box at
    the start (BMVC 2020, section 5.2). Otherwise y = (x, y, w, h), and the gradient of each coordinate is multiplied by
    the box's present w (x and w) or h (y and h) (DiMP's default space). Position steps apply to the first two
    coordinates, size steps to the last two.

    With a prior, boxes climb f + log p and are ranked by it.
    """

    steps: int
    position_step: float
    size_step: float
    relative_space: bool
    prior: AspectPrior | None = None
    momentum: float = 0.0


class Climb(NamedTuple):
    """The boxes after a climb: boxes_xywh (T, R, 4) float32 and energies (T, R) float32 before the last step.

    The energies are those at which the last step started (at the start for no steps), by which the candidates are
    ranked. A box that is not finite or reaches beyond 1e6 pixels has the energy and the gradient NaN.
    """

    boxes_xywh: np.ndarray
    energies: np.ndarray


class BoxEnergies(Protocol):
    """The energies of boxes in the search regions of T targets."""

    def look_at(self, boxes_xyxy: np.ndarray) -> None:
        """Compute now what boxes (T, R, 4) in crop pixels will need."""
        ...

    def gradient(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the gradients (T, R, 4) at boxes (T, R, 4) in crop pixels."""
        ...

    def value_and_gradient(self, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (T, R) and gradients (T, R, 4) at boxes (T, R, 4) in crop pixels."""
        ...


def check_same_network(saved: np.ndarray, own: np.ndarray) -> None:
    """Raise CheckpointError unless two networks have the same last layer, up to the rounding of float16."""
    if saved.shape != own.shape or not np.allclose(saved, own, rtol=2e-3, atol=1e-4):
        raise CheckpointError("was saved with another network; open the tracker with the weights of that one")


class OneProcess:
    """An engine of one process: deep copies share its network, and pickling it is a ConfigError."""

    def __deepcopy__(self: T, memo: dict) -> T:
        return self

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            "a tracker cannot be pickled, that is, sent to another process: make one in each process with "
            "from_pretrained(), and hand targets over with save_state() and load_state()"
        )


class Engine(Protocol):
    """A network as the tracker uses it.

    An engine is not copied: `copy.deepcopy` returns the same engine. Its methods raise no errors for boxes or scores;
    they raise ConfigError for shapes that the network cannot take.
    """

    @property
    def info(self) -> EngineInfo:
        """Return what the tracker must know of the network."""
        ...

    def start(self, first: FirstFrame) -> tuple[TargetModel, list[RegionFeatures]]:
        """Learn a target from its first frame.

        Args:
            first: samples and boxes of the first frame.

        Returns:
            The target's model (modulation vectors of the first patch and box, the filter after `first.iterations`
            steps, the samples in slots 0 to n + copies - 1), and the features of the first `first.regions` patches for
            this target.
        """
        ...

    def look(self, looks: Sequence[Look], mark: Mark = no_mark) -> list[Sight]:
        """Look at search regions, those of equal size in one pass of the network.

        Args:
            looks: requests, of any number of targets, several of one target included.
            mark: called with "backbone", then "classifier features", when these stages are done.

        Returns:
            One sight for each look, in order.
        """
        ...

    def climb(
        self, regions: Sequence[RegionFeatures], boxes_xywh: np.ndarray, ascent: Ascent, mark: Mark = no_mark
    ) -> Climb:
        """Let boxes climb the energy, for each target in its own search region.

        Args:
            regions: features of T search regions, T at least 1.
            boxes_xywh: (T, R, 4) float32, R candidate boxes in each region.
            ascent: steps and space.
            mark: called with "box features" when what the boxes need first is computed.

        Returns:
            The boxes after the climb and their energies before its last step.
        """
        ...

    def energy_of(self, regions: Sequence[RegionFeatures]) -> BoxEnergies:
        """Return the energies of boxes in T search regions, as a climb asks for them."""
        ...

    def energies(self, region: RegionFeatures, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the energies (n,) float32 of boxes (n, 4) float32 in a search region."""
        ...

    def hidden_units(self, region: RegionFeatures, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return the hidden units (n, c) float32 of boxes (n, 4) float32 in a search region; 0 for those out of sight.

        Energies are their products with the last layer's weights, up to a constant.
        """
        ...

    def last_layer(self, target: TargetModel) -> np.ndarray:
        """Return the weights (c,) float32 of the energy's last layer, as a target has them."""
        ...

    def use_last_layer(self, target: TargetModel, weights: np.ndarray) -> None:
        """Let a target's energy have other weights (c,) in its last layer, in regions it was looked at in, too.

        Deep copies of the target share the layer: call this before there are any.
        """
        ...

    def remember(self, target: TargetModel, slot: int, region: RegionFeatures, box_xyxy: np.ndarray) -> None:
        """Store a search region's classification features as a sample, in place of what the slot held.

        Args:
            target: the model to change.
            slot: 0 to capacity - 1.
            region: the features to store.
            box_xyxy: (4,) float32, the target in the region.
        """
        ...

    def learn(self, target: TargetModel, weights: np.ndarray, iterations: int) -> None:
        """Improve a target's filter on its stored samples.

        Args:
            target: the model to change.
            weights: (n,) float64, of the samples in slots 0 to n - 1; others are not used.
            iterations: steps of the filter optimiser, from the present filter.
        """
        ...

    def pack(self, target: TargetModel, region: RegionFeatures) -> Mapping[str, np.ndarray]:
        """Return the arrays of a target's model and of one region's features, in the same layout for every engine.

        Args:
            target: the model.
            region: features of a search region for this target.

        Returns:
            float32 arrays. network: (512,) weights of the energy's last layer in the network. last_layer: the same, as
            the target has them. vector8, vector16: (256,) modulation.
            filter: (c, k, k). samples: (capacity, c, h, w); boxes_xyxy: (capacity, 4), the target in each of them.
            layer2, layer3, classification: (c, h, w), the region's features. An engine may add arrays of its own.
        """
        ...

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> tuple[TargetModel, RegionFeatures]:
        """Return a target's model and a region's features from their arrays.

        Args:
            arrays: as `pack` returned them, of this engine or of another one with the same network.

        Raises:
            CheckpointError: on arrays of another network; KeyError: if one is missing.
        """
        ...
