"""The metric and the reports. Knows no model."""
