"""Media types of what is sent and answered."""

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PARQUET = "application/vnd.apache.parquet"
OCTETS = "application/octet-stream"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
TABLES = (CSV, NDJSON, PARQUET, ARROW)
"""Bodies of tables, for models that declare how their inputs are made."""
IMAGES = ("image/png", "image/jpeg", "image/webp", "image/tiff")
ZIP = "application/zip"
TAR = "application/x-tar"
ARCHIVES = (ZIP, TAR)
PICTURES = (*IMAGES, *ARCHIVES)
"""Bodies of images, of one row or of many."""
ROWS = (*TABLES, *PICTURES)
"""Bodies of rows as people have them."""
