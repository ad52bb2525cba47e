"""Millions of pictures: segmented by a Ray cluster, or by this machine, into Parquet files.

    from promptseg import batch

    summary = batch.segment("s3://bucket/photos", "s3://bucket/masks", "dog")
    batch.export("s3://bucket/masks", "dataset", "coco")

It needs ``pip install 'promptseg[ray]'``; importing this package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .cluster import Cluster as Cluster
    from .export import export as export
    from .run import segment as segment
    from .summary import Summary as Summary
else:  # a type checker that saw __getattr__ would accept any name
    __getattr__, __dir__, __all__ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "cluster": ["Cluster"],
            "export": ["export"],
            "run": ["segment"],
            "summary": ["Summary"],
        },
    )
