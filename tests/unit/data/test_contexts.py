"""Packs keep the jitter of training, or the run says that they do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ebmtrack.data.augment import Jitter, Look
from ebmtrack.data.contexts import (
    contexts_of,
    needed_context,
    share_within,
    warn_of_narrow,
    with_cut_at,
)
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.data.packing import write_pack
from ebmtrack.data.pipeline import CropSettings, TrainingSet
from ebmtrack.data.sampling import make_sampler
from ebmtrack.data.store import PackedSource
from ebmtrack.ltr_settings import dimp18_nce_plus, dimp50_nce_plus
from ebmtrack.videos.source import Source
from tests.support.golden import image

STILL = Look(grey=0, joint_flip=0, flip=0, brightness=0)
CROPS = dataclasses.replace(dimp50_nce_plus.CROPS, output=64, look=STILL)


class Wide(Source):
    """A target of 20 x 20 in the middle of 700 x 700 pixels, 24 frames: no search region meets the picture's end."""

    name, is_video = "lasot", True
    picture = image("wide", 700, 700)

    def __len__(self):
        return 1

    def target_name(self, index):
        return "wide"

    def boxes_xywh(self, index):
        return np.tile([340.0, 340, 20, 20], (24, 1))

    def visible(self, index):
        return np.ones(24, bool)

    def frame(self, index, frame):
        return self.picture


def pack_of(folder, context: float) -> PackedSource:
    """`Wide` as a pack of unscaled pixels."""
    write_pack(Wide(), folder, PackSettings(context=context, output=700, png=True))
    return PackedSource(folder, "lasot")


def settings_of(**changes) -> dimp50_nce_plus.Settings:
    sampling = dataclasses.replace(dimp50_nce_plus.SAMPLING, shares={"lasot": 1.0})
    return dimp50_nce_plus.Settings(steps=10, batch=10, sampling=sampling, crops=CROPS, **changes)


def boxes_of(samples: TrainingSet, count: int = 60) -> np.ndarray:
    return np.stack([samples[number]["boxes_xywh"].numpy() for number in range(count)])


def test_without_jitter_the_search_factor_is_enough():
    crops = CropSettings(search_factor=4.0, train_jitter=Jitter(0, 0), test_jitter=Jitter(0, 0))
    assert needed_context(crops) == 4 and share_within(crops, 4.0) == 1 and share_within(crops, 3.99) == 0


def test_a_jitter_of_place_needs_its_reach_more():
    """Centres move by U(-1/2, 1/2) * 2 in each axis: the wider of both reaches f + 2 m, and m^2 is uniform."""
    crops = CropSettings(search_factor=4.0, train_jitter=Jitter(0, 0), test_jitter=Jitter(2.0, 0))
    assert share_within(crops, 6.0) == 1 and share_within(crops, 5.0) == pytest.approx(0.25, abs=0.02)
    assert needed_context(crops, 0.81) == pytest.approx(4 + 2 * 0.9, abs=0.02)


@pytest.mark.parametrize("run, context", [(dimp50_nce_plus, 18), (dimp18_nce_plus, 15)])
def test_the_contexts_that_the_docs_name_hold_95_per_cent(run, context):
    """And one less does not."""
    assert share_within(run.CROPS, context) > 0.95 > share_within(run.CROPS, context - 1)


def test_a_wide_pack_gives_the_crops_of_the_files(tmp_path):
    """To a pixel of the crop, for nine in ten frames of the test part and more; a pack of 8 does for hardly half."""
    settings = settings_of()
    files = boxes_of(TrainingSet(make_sampler({"lasot": Wide()}, settings.sampling, 0), CROPS, 100))
    with pytest.warns(UserWarning, match="lasot"):
        narrow = boxes_of(dimp50_nce_plus.training_set(settings, {"lasot": pack_of(tmp_path / "narrow", 8)}))
    wide = boxes_of(dimp50_nce_plus.training_set(settings, {"lasot": pack_of(tmp_path / "wide", 18)}))
    same = [(np.abs(found - files)[:, 3:].max(axis=-1) < 1).mean() for found in (wide, narrow)]
    assert same[0] > 0.9 and same[1] < 0.6


def test_no_crop_of_a_pack_shows_what_lies_beyond_its_cut(tmp_path):
    """Also where the border is "replicate": each search region, found by its box, lies within the pack's picture."""
    settings = dataclasses.replace(settings_of(), crops=dataclasses.replace(CROPS, border="replicate"))
    pack = pack_of(tmp_path, 8)
    side = pack.frame(0, 0).shape[0]
    with pytest.warns(UserWarning):
        data = dimp50_nce_plus.training_set(settings, {"lasot": pack})
    for sample in (data[number] for number in range(40)):
        for box in sample["boxes_xywh"].numpy():
            scale = 20 / box[2]
            low = (side - 20) / 2 - box[:2] * scale
            assert (low > -1).all() and (low + 64 * scale < side + 1).all()


def test_the_warning_says_how_to_pack_and_a_wide_pack_gives_none():
    with pytest.warns(UserWarning, match=r"coco 54%.*--context 18 --output 1056"):
        warn_of_narrow(dimp50_nce_plus.CROPS, {"lasot": 18.0, "coco": 10.0})
    warn_of_narrow(dimp50_nce_plus.CROPS, {"lasot": 18.0, "coco": 30.0})
    warn_of_narrow(dimp50_nce_plus.CROPS, {})


def test_settings_of_ones_own_win_over_the_packs(tmp_path):
    pack = pack_of(tmp_path, 12)
    assert with_cut_at(CROPS, {"lasot": pack}).cut_at == {"lasot": 6.0}
    own = dataclasses.replace(CROPS, cut_at={"lasot": 2.0, "x": 1.0})
    assert with_cut_at(own, {"lasot": pack}).cut_at == {"lasot": 2.0, "x": 1.0}
    assert with_cut_at(CROPS, {"lasot": Wide()}).cut_at == contexts_of({"lasot": Wide()}) == {}


def test_packs_in_the_devices_memory_warn_too(tmp_path):
    """Their context is the lesser of their own and that of the pack of which they were made."""
    pack_of(tmp_path / "usual" / "lasot", 12)
    with pytest.warns(UserWarning, match=r"lasot 72%.*pack --context 18"):
        dimp50_nce_plus.training_set(settings_of(prepared=tmp_path / "usual"), {})
    pack_of(tmp_path / "wide" / "lasot", 18)
    dimp50_nce_plus.training_set(settings_of(prepared=tmp_path / "wide"), {})
    write_pack(pack_of(tmp_path / "pack", 9), tmp_path / "twice", PackSettings(context=18, output=700, png=True))
    assert contexts_of({"lasot": PackedSource(tmp_path / "twice", "lasot")}) == {"lasot": 9.0}
