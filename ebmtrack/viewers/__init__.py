"""Drawing, video files and windows."""
