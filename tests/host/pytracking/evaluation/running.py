"""Miniature: sequences one by one or in spawned workers; exceptions become one line; boxes are stored as integers."""

import multiprocessing
import os
from itertools import product

import numpy as np


def _save(seq, tracker, output):
    os.makedirs(tracker.results_dir, exist_ok=True)
    path = os.path.join(tracker.results_dir, seq.name)
    np.savetxt(path + ".txt", np.array(output["target_bbox"]).astype(int), delimiter="\t", fmt="%d")
    np.savetxt(path + "_time.txt", output["time"], fmt="%f")
    np.savetxt(path + "_object_presence_scores.txt", output["object_presence_score"], fmt="%f")


def run_sequence(seq, tracker, debug=0):
    if os.path.isfile(os.path.join(tracker.results_dir, seq.name + ".txt")) and not debug:
        print("FPS: -1")
        return
    print(f"Tracker: {tracker.name} {tracker.parameter_name} {tracker.run_id} ,  Sequence: {seq.name}")
    if debug:
        tracker.run_sequence(seq, debug=debug)
        return
    try:
        output = tracker.run_sequence(seq, debug=debug)
    except Exception as e:
        print(e)
        return
    _save(seq, tracker, output)


def run_dataset(dataset, trackers, debug=0, threads=0):
    if threads == 0:
        for seq, tracker in product(dataset, trackers):
            run_sequence(seq, tracker, debug)
        return
    multiprocessing.set_start_method("spawn", force=True)
    with multiprocessing.Pool(processes=threads) as pool:
        pool.starmap(run_sequence, [(seq, tracker, debug) for seq, tracker in product(dataset, trackers)])
