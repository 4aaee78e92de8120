"""Miniature: run a tracker on a video."""

import argparse
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from pytracking.evaluation.tracker import Tracker


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tracker_name")
    parser.add_argument("tracker_param")
    parser.add_argument("videofile")
    parser.add_argument("--optional_box", type=float, nargs="+")
    args = parser.parse_args()
    tracker = Tracker(args.tracker_name, args.tracker_param)
    tracker.run_video_generic(videofilepath=args.videofile, boxes=[args.optional_box], save_results=True)


if __name__ == "__main__":
    main()
