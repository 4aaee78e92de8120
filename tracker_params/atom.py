"""ATOM (CVPR 2019): its classifier, and a box branch that predicts the overlap (`ebmtrack train atom18_iou`).

ATOM* of ECCV 2020, whose branch is trained with the noise of the energy, climbs in relative space:
`relative_space=True, ascent_steps=10, position_step=1e-2, size_step=5e-2`. No trained weights come with it: `ebmtrack
track video.mp4 --params atom --weights atom18_iou.safetensors`.
"""

from __future__ import annotations

from ebmtrack.tracking.params import TrackerParams


def parameters() -> TrackerParams:
    """Return ATOM's set-up; all values are those of pytracking's default file for it."""
    return TrackerParams(
        weights="atom18_iou",
        classifier="atom",
        sample_size=288,
        search_factor=5.0,
        border="replicate",
        blur_sigmas=((2, 0.2), (0.2, 2), (3, 1), (1, 3), (2, 2)),
        rotations_deg=(5, -5, 10, -10, 20, -20, 30, -30, 45, -45, 60, -60),
        dropout_copies=7,  # 30 samples in all
        initial_iterations=6,  # rounds of Gauss-Newton, ten iterations of conjugate gradient each
        memory_size=250,
        update_every=10,
        update_iterations=5,
        hard_negative_iterations=5,
        ascent_steps=5,
        position_step=1.0,
        size_step=1.0,
        relative_space=False,
    )
