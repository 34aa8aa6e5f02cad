"""Folders of videos and labels: finding matches, checking them."""
