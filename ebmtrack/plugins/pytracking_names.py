"""The names by which pytracking asks for this tracker; no import of this file has an effect."""

NAME = "ebmtrack"
TRACKER = f"pytracking.tracker.{NAME}"
PARAMETERS = f"pytracking.parameter.{NAME}"
TRAINING = f"ltr.train_settings.{NAME}"
HOST = "pytracking.evaluation.tracker"
