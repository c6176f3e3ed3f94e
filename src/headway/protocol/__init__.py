"""The Open Inference Protocol v2 as data: its element types, and its gRPC messages (which need the extra ``grpc``)."""
