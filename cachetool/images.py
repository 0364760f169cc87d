"""The digest of a list of images: what of a cache's identity comes from its data."""

from __future__ import annotations

import hashlib

from cachetool.store import ImageTable


def image_digest(images: ImageTable) -> str:
    """SHA-256 over ids and content hashes of the images in their order, hexadecimal.

    It is kept out of the key's digest, since a cache may grow by images: an equal key with an equal prefix of this list
    is the same cache.
    """
    digest = hashlib.sha256()
    for image_id, sha256 in zip(images.image_id, images.sha256, strict=True):
        digest.update(f"{image_id}\0{sha256}\n".encode())
    return digest.hexdigest()
