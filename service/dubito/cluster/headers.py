"""The headers by which a proxy tells others what it knows of a request."""

NO_ID = b"x-dubito-no-id"
"""That the request came without an id: the one that it has is Serve's."""

MODEL = b"serve_multiplexed_model_id"
"""The model that it is for, by which Serve's router finds its replicas."""
