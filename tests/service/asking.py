"""Images to send, and a client that needs no sockets."""

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
    pytest.importorskip(name, reason="needs the packages of the extra serve")
httpx = pytest.importorskip("httpx2", reason="needs httpx2, a client of HTTP")


def png(height=24, width=40, seed=0, form="PNG", **options):
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


async def talk(service, *requests):
    """Send requests at once, each a method, a path and what the client takes besides."""
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        calls = (client.request(method, path, **more) for method, path, more in requests)
        return await asyncio.gather(*calls)
