"""The mutants of tools/mutants.py: lines of the library, what they become, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One change: in the text of a module, `old` (which must occur once) becomes `new`; `tests` must notice.

    tests: files below tests/unit, each with an optional `-k` word behind a space.
    """

    module: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        """The last part of the module's name."""
        return self.module.rpartition(".")[2]

    def change(self, text: str) -> str:
        """Return the changed text; ValueError if the line is not there, or more than once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.module}: {text.count(self.old)} times in the file: {self.old!r}")
        return text.replace(self.old, self.new)


def mutants_of(module: str, tests: tuple[str, ...], *changes: tuple[str, str]) -> list[Mutant]:
    """Return the mutants of one module."""
    return [Mutant(module, old, new, tests) for old, new in changes]


MUTANTS = [
    *mutants_of(
        "ebmtrack.energy.losses",
        ("energy/test_losses.py",),
        ("f_samples.mean(dim=-1) - _check_single", "f_samples.mean(dim=-1) + _check_single"),
        ("logits = f - log_q", "logits = f + log_q"),
        ("(log_p - log_q).exp()", "(log_q - log_p).exp()"),
        ("dim=-1) - math.log(f_samples.shape[-1])", "dim=-1)"),
        ("trace + 0.5 * score", "trace + score"),
        ("(y - y_i.unsqueeze(-2)) / sigma**2", "(y - y_i.unsqueeze(-2)) / sigma"),
        ("y = y + 0.5 * step**2 *", "y = y + step**2 *"),
        ("return nce(f, log_q, reduction=reduction)", "return nce(f, 0 * log_q, reduction=reduction)"),
    ),
    *mutants_of(
        "ebmtrack.evaluation.metrics",
        ("evaluation/test_metrics.py",),
        ("self.overlap[:, None] > np", "self.overlap[:, None] >= np"),
        ("self.center[:, None] <= PIXEL", "self.center[:, None] < PIXEL"),
        ("        if known[i]:", "        if True:"),
        ("else curve[20])", "else curve[21])"),
        ("    pred[0] = anno[0]\n    with", "    with"),
        ("center[~valid] = -1.0 if", "center[~valid] = np.inf if"),
        ("score.denominator if score.protocol.pooled else 1.0", "1.0"),
        ("valid[0] &= not chosen.skip_first", "valid[0] &= True"),
        ("norm[~visible] = np.inf", "norm[~visible] = -1.0"),
    ),
    *mutants_of(
        "ebmtrack.data.crops",
        ("data/test_crops.py", "data/test_crop_map.py", "data/test_training_windows.py"),
        (".min() - 0.1))", ".min()))"),
        ("self.side / 2 - self.shift", "self.side / 2 + self.shift"),
        ("self.scale + (self.side - 1) / 2", "self.scale + self.side / 2"),
        ("centre + side / 2 + 1", "centre + side / 2"),
        ("excess = np.floor((", "excess = np.ceil(("),
        ("(centre - offset) / stride if", "centre / stride if"),
        ("math.ceil(math.sqrt(", "math.floor(math.sqrt("),
        ("0.5 * ax - 0.5]", "0.5 * ax]"),
        ("max((side / size).min(), 1.0)", "max((side / size).max(), 1.0)"),
    ),
    *mutants_of(
        "ebmtrack.tracking.locate",
        ("tracking/test_step.py",),
        ("self.state.lost_frames <= params.weak_frames", "self.state.lost_frames < params.weak_frames"),
        ("params.weak_score > 0 and self", "self"),
        ("self.found.score >= params.weak_score", "self.found.score > params.weak_score"),
        ("state.params.weak_score > 0 or state.doubt > 0", "True"),
        ("lost_frames == state.params.weak_frames + 1", "lost_frames == state.params.weak_frames"),
        ("doubt=state.doubt - 1", "doubt=state.doubt"),
        ("if view is not seen.own:", "if view is seen.own:"),
        ("elif state.doubt:", "elif state.doubt > 1:"),
        ("and there.score >= found.score", ""),
        ("if is_other and is_clear", "if is_clear"),
        ("np.minimum(state.size_hw, state.found_hw) / 2", "state.size_hw / 2"),
        ("np.minimum(state.size_hw, state.found_hw) / 2", "state.found_hw / 2"),
        ("found.score >= params.clear_score", "found.score > params.clear_score"),
        ("state.at_found, doubt=0), seen", "state, doubt=0), seen"),
        ("state.at_found, doubt=0), seen", "state.at_found, doubt=3), seen"),
        ("dataclasses.replace(state.at_found, doubt=0)\n", "state.at_found\n"),
        ("or state.doubt > 0", ""),
        ("self.before is None or not is_clear", "True or not is_clear"),
    ),
    *mutants_of(
        "ebmtrack.tracking.step",
        ("tracking/test_step.py",),
        ("search_region(*pairs[k], 0", "search_region(*pairs[0], 0"),
        ("one.is_found and not state.doubt", "one.is_found"),
        ("one.own.region.is_inner and one", "False and one"),
        ("[regions_around(*pairs[k]) for k in lost]", "[regions_around(states[k], images[0]) for k in lost]"),
        ("[regions_around(*pairs[k]) for k in lost]", "[regions_around(*pairs[k]) for k in lost[::-1]]"),
        ("*region_before(state, image)]", "*region_before(state, images[0])]"),
    ),
    *mutants_of(
        "ebmtrack.tracking.size_check",
        ("tracking/test_size_check.py",),
        ("cut_region(images[k], one", "cut_region(images[0], one"),
        ("state, images[k].shape)", "state, images[0].shape)"),
        ("clamp_inside(place, state,", "clamp_inside(place, answers[k][1],"),
        (", random=RandomNumbers(state.frame))", ")"),
        ("dataclasses.replace(other, random=state.random)", "other"),
        ("energy_of(engine, answers[k][1])", "energy_of(engine, answers[0][1])"),
        ("+ HIGHER_ENERGY", ""),
        ("+ HIGHER_ENERGY, LEAST_ENERGY)", "+ HIGHER_ENERGY, -99)"),
        ("box[2:] += box[:2]", "pass"),
        ("with_first_size(answers[k][1])", "answers[k][1]"),
        ('found.verdict == "normal"', 'found.verdict != "not_found"'),
        ("np.maximum(state.size_hw, resized.size_hw)", "state.size_hw"),
        ("np.maximum(state.size_hw, resized.size_hw)", "resized.size_hw"),
        (".all())", ".any())"),
        ("(state.frame - 1 + state.phase)", "(state.frame + state.phase)"),
        ("+ state.phase)", ")"),
        ("and not one.view.region.is_inner", ""),
        ("and not state.doubt", ""),
        ("max(change, 1 / change)", "change"),
    ),
    *mutants_of(
        "ebmtrack.engines.onnx_files",
        ("engines/test_onnx_engine.py",),
        ("beside.get(name, name)", "name"),
        ('if wanted != "int8":', "if True:"),
        ('description["precision"] != "int8" and not', "not"),
        ('return "int8"', 'return description["precision"]'),
    ),
    *mutants_of(
        "ebmtrack.tracking.regions",
        ("tracking/test_regions.py", "tracking/test_step.py"),
        ("if not state.doubt:", "if state.doubt:"),
        ("state.found_yx, state.at_found.scale", "state.found_yx, state.scale"),
        ('kind="stable")][1:]', 'kind="stable")]'),
        ("distance - side / 2 - THIN * side", "distance - side / 2"),
        ("state.scale * state.params.sample_size, image", "state.params.sample_size, image"),
        ("steps[0] = side / 2", "pass"),
        ("steps[-1] = extent - side / 2", "pass"),
        ("0 < before < GRID_MOST", "before < GRID_MOST"),
        ("+ lost_frames * looks", "+ lost_frames"),
    ),
    *mutants_of(
        "ebmtrack.data.cutouts",
        ("data/test_cutouts.py",),
        ("x < 2 or", "x < -2 or"),
        ("y + h > height - 2", "y + h > height + 2"),
        ("x + w > width - 2", "x + w > width + 2"),
        ("box[2:].min() >= LEAST_SIDE", "box[2:].max() >= LEAST_SIDE"),
        ("LEAST_PIECE * foreground.sum()", "0 * foreground.sum()"),
        ("reach.min() <=", "reach.max() <="),
        ("FILLS[0] < fill < FILLS[1]", "FILLS[0] < fill"),
        ("not is_ragged and", ""),
        (">= LEAST_CONVEX *", ">= 0 *"),
        ("boxes[:, 2:].min(axis=1)", "boxes[:, 2:].max(axis=1)"),
        ("source.visible(index) & ", ""),
        ("if name.islower() else 1", "if name.islower() else 2"),
    ),
    *mutants_of(
        "ebmtrack.tracking.refine",
        ("tracking/test_refine.py",),
        (".min() / 3)", ".min() / 4)"),
        ("np.argsort(-energies[good]", "np.argsort(energies[good]"),
        ("(aspect < max_aspect)", "(aspect <= max_aspect)"),
        ("- np.float32(0.5)", "- np.float32(0.4)"),
        ("np.maximum(boxes_xywh[:, 2:], 1)", "np.maximum(boxes_xywh[:, 2:], 2)"),
        ("& np.isfinite(energies)", ""),
    ),
    *mutants_of(
        "ebmtrack.progress",
        ("test_progress.py",),
        ("LINE_EVERY_S = 60.0", "LINE_EVERY_S = 0.0"),
        ("except (AttributeError, ValueError):", "except ValueError:"),
        ("if sys.stderr is not None and not", "if not"),
    ),
    *mutants_of(
        "ebmtrack.images",
        ("test_images.py -k header", "test_images.py -k no_picture", "videos/test_labels.py -k stored_pixels"),
        ("- {0xC4, 0xC8, 0xCC}", "- {0xC8, 0xCC}"),
        ("            size = width, height\n", "            return width, height\n"),
        ('and b"eXIf" not in data', ""),
        ("if shown.shape == stored.shape:", "if shown.shape != stored.shape:"),
    ),
    *mutants_of(
        "ebmtrack.nets.residual",
        ("nets/test_backbones.py",),
        (
            "planes, 3, stride, padding=1, bias=False)\n        self.bn2",
            "planes, 3, 1, padding=1, bias=False)\n        self.bn2",
        ),
        ("expansion = 4", "expansion = 2"),
    ),
    *mutants_of(
        "ebmtrack.tracking.saving",
        ("tracking/test_saving.py",),
        ('facts["memory"]["initial"] = samples', 'facts["memory"]["initial"] = 1'),
        ("memory_size=max(params.memory_size, samples)", "memory_size=params.memory_size"),
    ),
    *mutants_of(
        "ebmtrack.tracking.limits",
        ("tracking/test_limits.py",),
        ("limits[0] <= number", "limits[0] < number"),
        ("number <= limits[1]", "number < 10**400"),
        (" and not is_whole", ""),
        ("shape[0] not in (None, len(value))", "False"),
        ("bool | np.timedelta64", "bool"),
        ("isinstance(value, bool | np.bool_)", "True"),
        ("in CHOICES.get(name, (value,))", "in (value,)"),
    ),
    *mutants_of(
        "ebmtrack.engines.box_ascent",
        ("engines/test_box_ascent.py",),
        ("high * size], axis=-1)", "high], axis=-1)"),
        ("of_log_size /= 2", "of_log_size /= 1"),
        ("np.square(size[:, :1])", "np.square(size)"),
        ("of_log_size[..., 1] -= by_ratio", "of_log_size[..., 1] += by_ratio"),
        ("self.velocity *= self.momentum\n        self.velocity += (", "self.velocity[:] = ("),
        ("self.velocity *= self.momentum\n        self.velocity += self", "self.velocity = self"),
    ),
    *mutants_of(
        "ebmtrack.engines.mirrored",
        ("engines/test_mirrored.py",),
        ("gradients[..., [2, 1, 0, 3]]", "gradients"),
        ("[-1, 1, -1, 1]", "[1, 1, 1, 1]"),
        ("(energies + others) / 2", "energies"),
        ("self._side(look)), straight.scores)", "self._side(look)), mirrored.scores)"),
        ("2 * margin * self.info.stride", "0"),
        ("mirror(first.boxes_xyxy[:1], side)", "first.boxes_xyxy[:1]"),
        ("self.engine.learn(target.straight, weights, iterations)", "pass"),
        ("name.removeprefix(PREFIX): v", "name.removeprefix(PREFIX): arrays[name.removeprefix(PREFIX)]"),
        ("engine.engine if isinstance(engine, MirroredEngine) else engine", "engine"),
    ),
    *mutants_of(
        "ebmtrack.engines.onnx_box_maps",
        ("engines/test_onnx_energy.py",),
        ("length if known is None else max(length, len(known[2]) + 1)", "length if known is None else total"),
    ),
    *mutants_of(
        "ebmtrack.engines.onnx_energy",
        ("engines/test_onnx_energy.py",),
        ("gradients[:, 2:] -= of_size", "gradients[:, 2:] += of_size"),
        ("1 - low, high - 1", "1 - low, low - 1"),
        ("if windows is not None and windows.hold(distances :=", "if windows is not None and (distances :="),
        ("distances >= self.bound", "distances >= -9"),
        ("np.ceil(high) <= self.last", "np.ceil(high) <= self.last + 1"),
        ("self.per_size = (size > 0) /", "self.per_size = 1 /"),
        ("seen = boxes[~lost][:1] if not lost.all() else", "seen ="),
    ),
    *mutants_of(
        "ebmtrack.data.crops",
        ("data/test_crops.py",),
        ("top * stride : bottom * stride", "top * stride : (bottom - 1) * stride"),
        ("1 / (1 / stride) >= stride", "True"),
        ("if whole.shape == taken.shape:", "if True:"),
        ("every[:h, w:] = whole, taken[h:], taken[:h, w:]", "every[:h, w:] = whole, taken[h:], taken[:h, :1]"),
    ),
    *mutants_of(
        "ebmtrack.images",
        ("test_images.py -k bands",),
        ("slice(top, top + rows)", "slice(top, top + 1)"),
        ("max(1, PIXELS_OF_ONE_THREAD // picture_bgr.shape[1])", "len(picture_bgr)"),
    ),
    *mutants_of(
        "ebmtrack.studies.bench_tracker",
        ("studies/test_bench.py -k median_frame",),
        ("1000 / float(np.median(frame_ms))", "1000 / float(np.mean(frame_ms))"),
    ),
    *mutants_of(
        "ebmtrack.evaluation.worker",
        ("evaluation/test_runner.py -k anew or meanwhile or fails or leftover or resuming",),
        ("            del self.made[params]", "            pass"),
        ("        if not is_done(job, task) and not has_failed(job, task):", "        if True:"),
        ('        for path in folder.glob(f".', '        for path in folder.glob(f"no.'),
        ('if path.suffix != ".error":', "if True:"),
    ),
    *mutants_of(
        "ebmtrack.evaluation.jobs",
        ("evaluation/test_runner.py -k seeds or something_else or overwriting",),
        ('f"{seed}/{run}/{sequence}"', 'f"{seed}/{sequence}"'),
        ("old.get(key) != new[key]", "False"),
    ),
    *mutants_of(
        "ebmtrack.evaluation.runner",
        ("evaluation/test_runner.py -k overwriting or deaths or dies",),
        ("        if locks.has_other_runner(folder, runner):", "        if False:"),
        ("        if task is None and worker.began:", "        if False:"),
    ),
    *mutants_of(
        "ebmtrack.checkpoints.native",
        ("checkpoints/test_native.py",),
        ('if tensors_sha256(tensors) != metadata["sha256"]:', "if False:"),
        ("    if version != FORMAT_VERSION:", "    if False:"),
        ("return half if half.isfinite().all() else value", "return half"),
        ("if value.dim() < 2 or not", "if not"),
        ("for name in sorted(tensors):", "for name in tensors:"),
    ),
    *mutants_of(
        "ebmtrack.checkpoints.untrusted",
        ("checkpoints/test_native.py", "checkpoints/test_pytracking.py"),
        ("    if missing or extra:", "    if missing:"),
        ("    if value.shape != entry.shape:", "    if False:"),
    ),
    *mutants_of(
        "ebmtrack.training.objective",
        ("training/test_objective.py",),
        ("torch.where(background, scores.clamp(min=0), scores)", "scores"),
        ("- (y * scores).sum(dim=(-2, -1))", "+ (y * scores).sum(dim=(-2, -1))"),
        ("settings.inner_weight / (len(each) - 2)", "settings.inner_weight"),
        ('if settings.box_loss == "nce_plus" else 0.0', 'if settings.box_loss == "nce_plus" else settings.beta'),
        ("(f - (2 * overlap - 1))", "(f - overlap)"),
        ("        labels = labels * known", "        labels = labels + 0 * known"),
        ("values[known].sum() / known.sum()", "values[known].sum() / known.numel() * known.sum()"),
        ("(iou_xywh(drawn, truth) > 0.1)", "(iou_xywh(drawn, truth) > 0.0)"),
        ("boxes_xywh[..., 2:] / 2) / FEATURE_STRIDE", "boxes_xywh[..., 2:]) / FEATURE_STRIDE"),
    ),
    *mutants_of(
        "ebmtrack.nets.classifier",
        ("nets/test_classifier.py",),
        ("(reg + self.alpha_eps) * g2", "reg * g2"),
        ("0.5 * (1 - m) * s.sign()", "0.5 * (1 - m)"),
        ("filter_gradient(x, slope * v * residual,", "filter_gradient(x, v * residual,"),
        ("q = p * xg - p * (p * xg).sum(dim=(-2, -1), keepdim=True)", "q = p * xg"),
        ("distance[..., 0, 0], 1 / n)", "distance[..., 0, 0], 1.0)"),
        ("variance = self.label_sigma**2", "variance = self.label_sigma"),
        ("weight = sample_weights.sqrt()", "weight = sample_weights"),
    ),
]
