"""The Open Inference Protocol over gRPC, beside the HTTP server, on a port of its own.

starting        the server where its port is set
server          the port, its threads, and the frame of a call: key, request id, errors
methods         what each method of the service answers
messages        requests of an inference read, and its reply written
inference_pb2   the protocol's messages, made from `inference.proto`, which says how

Beside `starting`, nothing is imported where no port is set: grpcio is needed only there.
"""
