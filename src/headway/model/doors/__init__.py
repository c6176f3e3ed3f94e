"""Doors for models that are not ONNX yet: one file a kind, named as the kind.

``pt2`` opens ``FILE.pt2``, ``saved_model`` a folder with ``saved_model.pb``, ``python`` what follows ``python:``.

A door's file has one function, ``export(request: Request) -> Exported`` (``headway.model.workshop``). It runs in a process of its own
and may import any framework at its top. It writes ONNX files, one for each export route that worked, and gives the original's answers
on the rows tried. It raises ``ModelError`` when nothing can be exported; it does not compare answers and does not free the batch: that
is done for all doors alike.
"""
