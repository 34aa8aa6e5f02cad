"""The report page: its data, style and scripts."""
