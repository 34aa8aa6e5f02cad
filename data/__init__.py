"""Data sets: where matches, videos, labels and splits are; checks, small copies of videos, synthetic matches."""
