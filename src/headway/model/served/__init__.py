"""Where other servers keep their models: one file a server, named as the scheme that forces it (``triton:FOLDER``).

A file here finds the model in a folder or an archive and reads how it was served; its contract is in ``contract``. It runs in the
process that measures, so it imports no framework and executes nothing of what it finds: what lies inside is then read as ``FILE.onnx``
is, or opened by a door (``headway.model.doors``) in a process of its own.
"""
