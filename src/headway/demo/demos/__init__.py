"""The demos, one file each: ``build(cache, progress) -> Case`` and ``network()``, the model that the case names."""
