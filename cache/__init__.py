"""The feature store: settings key, Zarr layout, mapped reads. Never imports torch models."""
