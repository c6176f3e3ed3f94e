"""Exporters for model objects in memory: one file a framework, named as the package of the object's class (``torch``, ``keras``).

A file has one function, ``export(model, request: Request) -> Exported``, with the same duties as a door's.
"""
