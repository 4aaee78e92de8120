"""One file per tracker set-up: parameters() -> TrackerParams."""
