"""Miniature: run a tracker on a data set."""

import argparse
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from pytracking.evaluation.datasets import get_dataset
from pytracking.evaluation.running import run_dataset
from pytracking.evaluation.tracker import Tracker


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tracker_name")
    parser.add_argument("tracker_param")
    parser.add_argument("--runid", type=int)
    parser.add_argument("--dataset_name", default="otb")
    parser.add_argument("--sequence")
    parser.add_argument("--debug", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    dataset = [seq for seq in get_dataset(args.dataset_name) if args.sequence in (None, seq.name)]
    run_dataset(dataset, [Tracker(args.tracker_name, args.tracker_param, args.runid)], args.debug, args.threads)


if __name__ == "__main__":
    main()
