"""Every number and picture, computed from a run folder."""
