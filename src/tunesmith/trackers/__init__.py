"""Where a run's metrics also go: one file a tracker."""
