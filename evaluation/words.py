"""Explanations of the abbreviations on a page of results."""

from __future__ import annotations

FIGURES = {
    "AUC": "area under the success curve: the mean of OP over all overlap thresholds",
    "AO": "average overlap: the mean overlap of all frames that count",
    "OP": "overlap precision: the share of frames whose overlap with the annotation is greater than the threshold",
    "SR": "success rate: GOT-10k's name for OP",
    "Precision 20 px": "share of frames whose centre is at most 20 pixels off",
    "Norm. precision": "the same with the error divided by the target's width and height; at 0.2 or the mean up to 0.5",
    "frames/s": "frames after the first over the time that the tracker's calls took; reading images is not counted",
    "95 % interval": "bootstrap over sequences: how far the mean could be off because they are few",
    "calibration error": "distance of the share of lost frames from the probability said, mean over ten bins",
    "Brier": "mean square of probability said minus outcome (0 or 1): lower is better",
    "Brier of the share": "Brier score of saying the share of lost frames in every frame",
    "overlap": "intersection over union of the tracker's box and the annotated one",
}

# From the benchmarks' papers: OTB (PAMI 2015), UAV123 (ECCV 2016), LaSOT (CVPR 2019), VOT.
ATTRIBUTES = {
    "ARC": "aspect ratio change",
    "BC": "background clutter",
    "CM": "camera motion",
    "DEF": "deformation",
    "FM": "fast motion",
    "FOC": "full occlusion",
    "IPR": "in-plane rotation",
    "IV": "illumination variation",
    "LR": "low resolution",
    "MB": "motion blur",
    "OCC": "occlusion",
    "OPR": "out-of-plane rotation",
    "OV": "out of view",
    "POC": "partial occlusion",
    "ROT": "rotation",
    "SOB": "similar object",
    "SV": "scale variation",
    "VC": "viewpoint change",
}


def explain(heading: str) -> str:
    """Return the explanation of a column's head or an attribute; empty if it needs none."""
    known = {**FIGURES, **ATTRIBUTES}
    return known.get(heading) or next((known[key] for key in ("OP", "SR") if heading.startswith(f"{key} ")), "")
