"""Open-loop senders of further protocols, one a file, named like the URL's scheme: ``open_sender`` connects.

``open_sender(place, tls, token)`` gives an object with ``model()``, ``inputs(model)``, ``request(model, feeds)``, ``outputs(answer)``,
``run(...)`` and ``close()``, as ``grpc.GrpcSender`` has them.
"""
