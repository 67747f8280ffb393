"""Flows: multi-step processes as generators. They yield effects and are sent the results, so they do no IO."""
