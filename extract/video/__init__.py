"""Videos on a constant time grid."""
