"""What runs a backbone: PyTorch or OpenVINO."""
