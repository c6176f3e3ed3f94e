"""Work and bundles on the nodes of a Ray cluster (extra ``ray``); nothing distributed is home-made."""
