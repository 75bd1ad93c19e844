"""Media types of what is sent and answered."""

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PARQUET = "application/vnd.apache.parquet"
OCTETS = "application/octet-stream"
