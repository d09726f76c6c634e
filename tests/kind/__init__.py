"""The provider kind on a real Docker engine; skipped, with the reason, where none runs."""
