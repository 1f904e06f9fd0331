"""From a run to a run folder."""
